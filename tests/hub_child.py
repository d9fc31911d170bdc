"""A user's process that loads models through one framework's own hub, with strangers' modules in the way.

python hub_child.py FRAMEWORK FOLDERS: the latter is what hub_folders.folders() gives, as JSON. Nothing installed of PolyMAE
can be imported, only what the hub unpacked. The last line printed is JSON: what the hub gave, for the tests to judge.
"""

import functools
import importlib.metadata
import importlib.util
import json
import sys
import types
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hubs import HUBS, NAME, Hub

FRAMEWORKS = {"torch", "megengine", "mindspore", "oneflow"}
SIZES = {
    "img_size": 32, "patch_size": 8, "in_chans": 1, "embed_dim": 48, "depth": 2, "num_heads": 4, "decoder_embed_dim": 32,
    "decoder_depth": 1, "decoder_num_heads": 2, "mlp_ratio": 2, "norm_pix_loss": True,
}  # fmt: skip
OF_FILE = {
    "img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3, "decoder_embed_dim": 32, "decoder_depth": 2,
    "decoder_num_heads": 4,
}  # fmt: skip


class Stranger(types.ModuleType):
    """A module of the user's that happens to have the name of one of our folders."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what any look at sys.modules asks for
            raise AttributeError(name)
        raise AssertionError(f"{self.__name__}.{name}: a stranger's module was used")


def forget_installed() -> None:
    """Make it as if PolyMAE were not installed: this environment has it in editable form."""
    sys.path[:] = [path for path in sys.path if not (Path(path) / "polymae" / "__init__.py").is_file()]
    from_name = importlib.metadata.Distribution.from_name

    def hidden(name: str) -> importlib.metadata.Distribution:
        if name == "polymae":
            raise importlib.metadata.PackageNotFoundError(name)
        return from_name(name)

    importlib.metadata.Distribution.from_name = hidden  # type: ignore[method-assign,assignment]
    if importlib.util.find_spec("polymae") is not None:
        raise AssertionError("polymae can be imported before any hub has loaded it")


def described(model: Any) -> dict[str, Any]:
    """What kind of model it is, and the hash of its weights."""
    from polymae.backends.runtime import load_backend
    from polymae.convert.checkpoint import content_hash

    kind = type(model)
    weights = load_backend(kind.__module__.split(".")[2]).weights(model)
    return {
        "module": kind.__module__, "class": kind.__name__, "hash": content_hash(weights), "config": asdict(model.config),
        "training": bool(getattr(model, "training", False)),
    }  # fmt: skip


def caught(action: Callable[[], Any]) -> Any:
    """What an action gives, described, or the error that it ends in."""
    try:
        return described(action())
    except Exception as problem:
        return {"error": str(problem), "kinds": [kind.__name__ for kind in type(problem).__mro__]}


def constructors(hub: Hub) -> dict[str, Any]:
    """MAE(...) in the official names, with every norm_layer that may be given."""
    found = {"MAE": described(hub.load("MAE", **SIZES))}
    if hub.LayerNorm is not None:
        eps = "epsilon" if hub.framework == "mindspore" else "eps"
        wanted = {"layer": hub.LayerNorm, "partial": functools.partial(hub.LayerNorm, **{eps: 1e-4})}
        found |= {name: described(hub.load("MAE", **SIZES, norm_layer=layer)) for name, layer in wanted.items()}
        partial = functools.partial(hub.LayerNorm, **{eps: 1e-4}, elementwise_affine=False)
        found["odd setting"] = caught(lambda: hub.load("MAE", **SIZES, norm_layer=partial))
        found["usual eps"] = getattr(hub.LayerNorm((4,)), eps)
    found["odd norm"] = caught(lambda: hub.load("MAE", **SIZES, norm_layer=len))
    return found


def outputs(hub: Hub, model: Any) -> None:
    """Run the model as a user does, and write what it gives."""
    import numpy as np

    from polymae.backends.runtime import load_backend

    runtime = load_backend(hub.framework)
    with np.load(hub.folders["inputs"]) as inputs:
        imgs, noise = (runtime.from_numpy(inputs[name], model) for name in ("imgs", "noise"))
    given = dict(zip(("loss", "pred", "mask"), model(imgs, noise)))
    np.savez(hub.folders["outputs"], **{name: runtime.to_numpy(tensor) for name, tensor in given.items()})


def main(framework: str, folders: dict[str, str]) -> dict[str, Any]:
    forget_installed()
    sys.path[0] = folders["strangers"]
    for name in ("hub", "backends", "convert"):  # imported by the user before; the others lie on the path only
        sys.modules[name] = Stranger(name)
    hub = HUBS[framework](folders)
    before = set(sys.modules)

    def imported() -> list[str]:
        return sorted({name.split(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)

    said: dict[str, Any] = {"listed": hub.list(), "imported by list": imported(), "help": hub.help(NAME)}
    model = hub.load(NAME, weights=folders["weights"])
    said["imported by load"] = imported()
    outputs(hub, model)
    said["models"] = {"weights": described(model), "initial": described(hub.load(NAME))}
    said["models"]["classifier"] = described(hub.load("vit_test_patch8"))
    said["models"]["by sizes"] = described(hub.load("MAE", **OF_FILE, weights=folders["weights"]))
    if framework != "mindspore":  # there pretrained is the hub's own, and the file its own
        said["models"]["pretrained"] = described(hub.load(NAME, pretrained=folders["weights"]))
    said["MAE"] = constructors(hub)
    said["frameworks"] = sorted(FRAMEWORKS & sys.modules.keys())
    sys.modules[hub.blocked] = None  # type: ignore[assignment]
    said["more"] = {name: caught(action) for name, action in hub.more().items()} | {
        "unknown entry": caught(lambda: hub.load("mae_vit_bas_patch16")),
        "unknown setting": caught(lambda: hub.load(NAME, num_layers=3)),
        "no such file": caught(lambda: hub.load(NAME, weights="nowhere.pth")),
        "missing framework": caught(lambda: hub.load(f"{hub.blocked}_{NAME}", framework=hub.blocked)),
    }
    said["root"] = str(Path(sys.modules["polymae"].__file__ or "").resolve().parents[2])
    ours = [module for name, module in sys.modules.items() if name.startswith("polymae.")]
    said["strays"] = [str(m) for m in ours if not str(getattr(m, "__file__", "")).startswith(said["root"])]
    print("second version:", file=sys.stderr)
    said["models"]["second"] = described(hub.second())
    return said


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], json.loads(sys.argv[2]))))
