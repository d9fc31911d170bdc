"""The hubs of the frameworks, each with the same few methods, as a user's process would use them (hub_child.py)."""

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAME = "mae_vit_test_patch8"


class Hub:
    """No hub at all: hubconf.py run by its path, for NumPy, which has none."""

    framework = "numpy"
    blocked = "oneflow"  # the framework that is made to be missing
    LayerNorm: Any = None

    def __init__(self, folders: dict[str, str]) -> None:
        import numpy  # noqa: F401  (every framework has imported it by now)

        self.folders = folders

    def module(self, folder: str) -> Any:
        """hubconf.py, as imported from a folder by hand."""
        spec = importlib.util.spec_from_file_location("anything", Path(folder) / "hubconf.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def list(self) -> list[str]:
        module = self.module(self.folders["root"])
        return [name for name in dir(module) if callable(getattr(module, name))]

    def help(self, name: str) -> str:
        return str(getattr(self.module(self.folders["root"]), name).__doc__)

    def load(self, name: str, **given: Any) -> Any:
        return getattr(self.module(self.folders["root"]), name)(**{"framework": "numpy", **given})

    def second(self) -> Any:
        """A model of another version of the repository."""
        return self.module(self.folders["second"]).mae_vit_test_patch8(framework="numpy")

    def more(self) -> dict[str, Callable[[], Any]]:
        """What only this hub has to show: by name, a model or an error."""
        return {"not told": lambda: self.load(NAME, framework=None)}


class TorchHub(Hub):
    framework = "torch"

    def __init__(self, folders: dict[str, str]) -> None:
        super().__init__(folders)
        import torch

        self.hub: Any = torch.hub
        self.LayerNorm: Any = torch.nn.LayerNorm

    def list(self) -> list[str]:
        # Of GitHub only; here from the cache, where a repository that was downloaded before is found without network.
        return [str(name) for name in self.hub.list("someone/polymae:main", trust_repo=True)]

    def help(self, name: str) -> str:
        return str(self.hub.help("someone/polymae:main", name, trust_repo=True))

    def load(self, name: str, **given: Any) -> Any:
        return self.hub.load(self.folders["root"], name, source="local", **given)

    def second(self) -> Any:
        return self.hub.load(self.folders["second"], NAME, source="local")

    def more(self) -> dict[str, Callable[[], Any]]:
        weights = self.folders["weights"]
        return {
            "cached": lambda: self.hub.load("someone/polymae:main", NAME, trust_repo=True, weights=weights),
            "numpy's": lambda: self.load(f"numpy_{NAME}", weights=weights),
        }


class OneFlowHub(TorchHub):
    framework = "oneflow"
    blocked = "mindspore"

    def __init__(self, folders: dict[str, str]) -> None:
        Hub.__init__(self, folders)
        import oneflow

        self.hub = oneflow.hub
        self.LayerNorm = oneflow.nn.LayerNorm


class MegEngineHub(Hub):
    framework = "megengine"

    def __init__(self, folders: dict[str, str]) -> None:
        super().__init__(folders)
        import megengine.hub
        import megengine.module

        # Its own fetch, git over SSH: git is told that git@github.com: is a folder here.
        self.where: dict[str, Any] = {"protocol": "SSH"}
        self.hub, self.LayerNorm = megengine.hub, megengine.module.LayerNorm

    def list(self) -> list[str]:
        return [str(name) for name in self.hub.list("someone/polymae:main", **self.where)]

    def help(self, name: str) -> str:
        return str(self.hub.help("someone/polymae:main", name, **self.where))

    def load(self, name: str, **given: Any) -> Any:
        return self.hub.load("someone/polymae:main", name, **self.where, **given)

    def second(self) -> Any:
        return self.hub.load("someone/second:main", NAME, **self.where)

    def more(self) -> dict[str, Callable[[], Any]]:
        weights = self.folders["weights"]
        return {
            "fetched again": lambda: self.hub.load(
                "someone/polymae:main", NAME, use_cache=False, weights=weights, **self.where
            ),
            "torch's": lambda: self.load(f"torch_{NAME}", weights=weights),
        }


class MindSporeHub(Hub):
    """mindspore_hub is on no registry: these are the steps of its load(name, source="local")."""

    framework = "mindspore"

    def __init__(self, folders: dict[str, str]) -> None:
        super().__init__(folders)
        import mindspore

        self.mindspore, self.LayerNorm = mindspore, mindspore.nn.LayerNorm

    def conf(self, folder: Path) -> Any:
        """mindspore_hub_conf.py of a network's folder, which goes on sys.path and stays there."""
        sys.path.insert(0, str(folder))
        spec = importlib.util.spec_from_file_location("mindspore_hub_conf.py", folder / "mindspore_hub_conf.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def load(self, name: str, *args: Any, pretrained: bool = False, **given: Any) -> Any:
        import yaml

        page = Path(os.path.realpath(self.folders["page"]))
        said = yaml.safe_load(page.read_text().split("---\n")[1])
        folder = page.parent / os.path.basename(said["repo-link"]).strip("<>")  # noqa: PTH119  (of a URL)
        net = self.conf(folder).create_network((name or said["backbone-name"]).lower(), *args, **given)
        assert isinstance(net, self.mindspore.nn.Cell)
        if pretrained:
            file = os.path.basename(said["asset"][0]["asset-link"].strip("<>"))  # noqa: PTH119
            found = self.mindspore.load_checkpoint(str(page.parent / file))
            missing, _ = self.mindspore.load_param_into_net(net, found)
            assert not missing
        return net

    def list(self) -> list[str]:
        return [str(name) for name in self.conf(Path(self.folders["root"])).list_models()]

    def help(self, name: str) -> str:
        return str(self.module(self.folders["root"])._entries.entries("mindspore")[name].__doc__)

    def second(self) -> Any:
        return self.conf(Path(self.folders["second"])).create_network(NAME)

    def more(self) -> dict[str, Callable[[], Any]]:
        def made() -> Any:
            # As a user has it, by name; the second version's folder is not on sys.path yet.
            from mindspore_hub_conf import create_model

            return create_model(NAME, pretrained=self.folders["weights"])

        return {
            "its own file": lambda: self.load("", pretrained=True),
            "in capitals": lambda: self.load(NAME.upper(), weights=self.folders["weights"]),
            "create_model": made,
            "no such network": lambda: self.load("mae_vit_bas_patch16"),
        }


HUBS = {hub.framework: hub for hub in (Hub, TorchHub, MegEngineHub, MindSporeHub, OneFlowHub)}
