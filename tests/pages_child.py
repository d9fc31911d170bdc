"""Runs the Python of the pages in one framework's process: pages_child.py FRAMEWORK ROOT BLOCKS (a JSON file).

Every block begins with the names that its page takes for granted: a model and its images, two functions to compare.
"""

import inspect
import json
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

FRAMEWORK, ROOT, BLOCKS = sys.argv[1:]


def without_a_network(hub: Any) -> None:
    """Have a framework's hub load from this folder. MegEngine's has no local source: its arguments are checked."""
    load = hub.load

    def local(*args: Any, **given: Any) -> Any:
        if FRAMEWORK != "megengine":
            return load(*args, **{**given, "source": "local"})
        bound = inspect.signature(load).bind(*args, **given)
        entry = getattr(import_module("hubconf"), f"megengine_{bound.arguments['entry']}")
        return entry(*bound.arguments.get("args", ()), **bound.arguments.get("kwargs", {}))

    hub.load = local


def granted() -> dict[str, Any]:
    """What the pages' Python uses and does not make."""
    from polymae.hub import load

    def reference(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"conv1": inputs["images"].reshape(2, -1) @ inputs["conv1.weight"]}

    rng = np.random.default_rng(0)
    names = {
        "load": load,
        "images": rng.random((2, 3, 8, 8)),
        "weight": rng.random((192, 4)),
        "reference": reference,
        "port": lambda inputs: reference(inputs),
    }
    if FRAMEWORK == "torch":
        import torch

        nets = {name: torch.nn.Linear(8, 8).eval() for name in ("net", "ported_net")}
        images = {"imgs": torch.zeros(2, 3, 32, 32), "noise": torch.rand(2, 16), "torch": torch}
        models = {"model": load("mae_vit_test_patch8", "torch"), "classifier": load("vit_test_patch8", "torch")}
        names |= {**nets, **images, **models}
    return names


sys.path.insert(0, ROOT)  # as the pages say of hubconf.py and mindspore_hub_conf.py
framework = import_module(FRAMEWORK)
if FRAMEWORK != "mindspore":
    without_a_network(import_module(f"{FRAMEWORK}.hub"))
for where, code in json.loads(Path(BLOCKS).read_text()):
    names = granted() | {FRAMEWORK: framework}
    try:
        exec(compile(code.replace("FOLDER", ROOT), where, "exec"), names)
        for name, function in list(names.items()):
            if name.startswith("test_"):
                function()
    except Exception:
        traceback.print_exc()
        sys.exit(f"{where}\n{code}")
