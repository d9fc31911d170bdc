"""PolyMAE's models for MindSpore: `create_network`, which mindspore_hub.load calls, and `create_model`, as mindcv has it.

from mindspore_hub_conf import create_model            # with this folder on sys.path
network = create_model("mae_vit_base_patch16", pretrained=True)
"""

import importlib.machinery
import importlib.util
import pathlib
from typing import Any

# By its path: a stranger's hubconf may be on sys.path.
_loader = importlib.machinery.SourceFileLoader("polymae_hubconf", str(pathlib.Path(__file__).with_name("hubconf.py")))
_hubconf = importlib.util.module_from_spec(importlib.machinery.ModuleSpec("polymae_hubconf", _loader))
_hubconf.__file__ = _loader.path
_loader.exec_module(_hubconf)
_entries = _hubconf._entries
_by_name = {name.lower(): entry for name, entry in _entries.entries("mindspore").items()}


def create_network(name: str, *args: Any, **kwargs: Any) -> Any:
    """A mindspore.nn.Cell by name, in capitals or not: mindspore_hub.load passes it in small letters.

    args, kwargs: the entry's own. Raises polymae.files.errors.Problem for an unknown name, with the nearest ones.
    """
    if name.lower() not in _by_name:
        raise _entries.unknown(name)
    return _by_name[name.lower()](*args, **kwargs)


def create_model(name: str, pretrained: Any = False, **kwargs: Any) -> Any:
    """A mindspore.nn.Cell by name, with weights; kwargs: the entry's own, as num_classes=10."""
    return create_network(name, pretrained=pretrained, **kwargs)


def list_models() -> list[str]:
    """Every name that the two functions take."""
    return ["MAE", *_entries.list_models()]
