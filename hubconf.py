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

# This folder as the package polymae (docs/decisions/mounted-root.md), and at once: megengine.hub takes it off sys.path before it
# calls an entry. Only modules and entries get a name here, since hubs list whatever can be called.
_root = str(pathlib.Path(__file__).resolve().parent)
if "polymae" not in sys.modules:
    _spec = importlib.machinery.ModuleSpec("polymae", None, is_package=True)
    _spec.submodule_search_locations = [_root]
    sys.modules["polymae"] = importlib.util.module_from_spec(_spec)
else:
    # Its parts know their folder; the package itself does not where it is installed in editable form.
    _part = importlib.util.find_spec("polymae.hub")
    _other = str(pathlib.Path(_part.origin).resolve().parents[1]) if _part and _part.origin else "elsewhere"
    if _other != _root:
        print(f"polymae: already imported from {_other}, so {_root} is not used.", file=sys.stderr)
_entries = importlib.import_module("polymae.hub.entries")
globals().update(_entries.entries(_entries.calling_hub()))
