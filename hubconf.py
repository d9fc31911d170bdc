"""PolyMAE's entry points for torch.hub, megengine.hub and oneflow.hub: the same names in each, and each gets its own models.

    torch.hub.load("<owner>/polymae", "mae_vit_base_patch16", pretrained=True)
    oneflow.hub.load("<owner>/polymae", "mae_vit_base_patch16", pretrained=True)
    megengine.hub.load("<owner>/polymae:main", "mae_vit_base_patch16", pretrained=True)

It works from an unpacked zip, with nothing installed but the framework and `dependencies`.
"""

import importlib.machinery
import importlib.util
import pathlib
import sys

if sys.version_info < (3, 10):  # noqa: UP036  (a hub hands this file to any Python)
    raise ImportError(f"PolyMAE needs Python 3.10 or newer, and this is Python {sys.version.split()[0]}.")

# What loading weights needs beside the framework: every hub says what is missing. Frameworks are not listed, since whoever uses
# one hub has not the others'.
dependencies = ["numpy", "einops", "blake3", "requests", "rich"]

# The package polymae from this folder, and at once: megengine.hub takes it off sys.path before it calls an entry. Only modules
# and entries get a name here, since hubs list whatever can be called.
_init = pathlib.Path(__file__).resolve().parent / "src" / "polymae" / "__init__.py"
if "polymae" not in sys.modules:
    _loader = importlib.machinery.SourceFileLoader("polymae", str(_init))
    _spec = importlib.util.spec_from_file_location("polymae", _init, loader=_loader)
    sys.modules["polymae"] = importlib.util.module_from_spec(_spec)
    _loader.exec_module(sys.modules["polymae"])
else:
    _other = pathlib.Path(sys.modules["polymae"].__file__ or "").resolve()
    if _other != _init:
        print(f"polymae: already imported from {_other.parent}, so {_init.parent} is not used.", file=sys.stderr)
_entries = importlib.import_module("polymae.hub.entries")
globals().update(_entries.entries(_entries.calling_hub()))
