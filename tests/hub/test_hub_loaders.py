"""One entry name in the real hubs: from a zip that a stranger unpacked, with nothing of ours installed, in its own process.

mindspore_hub itself is not run, since no registry has it: its documented steps are (hub_child.py).
"""

import json
import re
import runpy

import numpy as np
import pytest
from frameworks import frameworks_under_test
from hub_folders import CONFIG, FOLDER, INPUTS, NAME, ROOT, STRANGERS, UNPACKED, WEIGHTS, folders, run, said
from untested import require

from polymae.backends import FRAMEWORKS
from polymae.backends.presets import ALIASES, PRESETS
from polymae.backends.runtime import load_backend
from polymae.compare.limits.metrics import error
from polymae.compare.limits.tolerance import tensor_limit
from polymae.convert.checkpoint import content_hash
from polymae.files.errors import Problem
from polymae.hub import list_models
from polymae.hub.entries import entries


def test_each_hub_lists_the_same_entries_and_describes_them(framework: str) -> None:
    found = said(framework).json
    small = {NAME, NAME.removeprefix("mae_")}  # the user's own list has weights of them
    named = {"MAE", *list_models(), *small}
    assert {"mae_vit_huge_patch14", "mae_vit_base_patch16_dec512d8b", "vit_large_patch16"} <= named
    longer = {f"{prefix}_{name}" for prefix in FRAMEWORKS for name in (*PRESETS, *ALIASES) if name in named}
    # What mindspore_hub_conf.py lists is our own; the hubs themselves list whatever can be called.
    assert set(found["listed"]) == (named if framework == "mindspore" else named | longer)
    assert "Masked autoencoder" in found["help"]
    assert "pretrained" in found["help"]


def test_only_what_is_asked_for_is_imported(framework: str) -> None:
    found = said(framework).json
    assert not set(found["imported by list"]) - {"numpy", "polymae"}
    assert found["frameworks"] == ([] if framework == "numpy" else [framework])
    # A hub says what is missing by this list; scipy is the numpy backend's own, yaml mindspore_hub's.
    declared = {*runpy.run_path(str(ROOT / "hubconf.py"))["dependencies"], framework, "polymae"}
    own = {"numpy": {"scipy", "numpy"}, "mindspore": {"yaml"}}.get(framework, set())
    used = {name for name in found["imported by load"] if not name.startswith("_")}
    assert "einops" in used
    assert used <= declared | own


def test_the_models_are_the_frameworks_own_from_the_unpacked_folder(framework: str) -> None:
    found = said(framework).json
    cloned = re.escape(str(FOLDER / "megengine" / "hub")) + r"/\w+"
    assert re.fullmatch(cloned if framework == "megengine" else re.escape(str(FOLDER / UNPACKED)), found["root"])
    assert found["strays"] == []
    for name, model in found["models"].items():
        kind = "ViT" if name == "classifier" else "MAE"
        assert (model["module"], model["class"]) == (f"polymae.backends.{framework}.model", kind), name
        assert not model["training"]


def test_the_hash_of_the_weights_is_the_files(framework: str) -> None:
    models = said(framework).json["models"]
    digest = content_hash(WEIGHTS)
    assert models["weights"]["hash"] == digest
    assert models.get("pretrained", models["weights"])["hash"] == models["by sizes"]["hash"] == digest
    assert models["initial"]["hash"] == models["second"]["hash"] != digest
    assert f"{NAME} with {folders()['weights']}" in said(framework).stderr


def test_outputs_agree_within_roundoff(framework: str) -> None:
    numpy = load_backend("numpy")
    oracle, twin = (
        numpy.build(CONFIG, WEIGHTS, dtype=dtype)(INPUTS["imgs"], INPUTS["noise"]) for dtype in ("float64", "float32")
    )
    blocks = CONFIG.depth + CONFIG.decoder_depth
    outputs = said(framework).outputs
    for name, expected, other in zip(("loss", "pred", "mask"), oracle, twin):
        expected = np.asarray(expected)
        limit = tensor_limit(expected.size, [error(np.asarray(other), expected)], blocks)
        assert outputs[name].shape == expected.shape
        assert error(outputs[name], expected) <= (0 if name == "mask" else limit.value), limit.reason
    assert 0 < outputs["mask"].mean() < 1


def test_the_official_constructor(framework: str) -> None:
    found = said(framework).json["MAE"]
    config = found["MAE"]["config"]
    own = {
        "img_size": [32, 32],
        "in_chans": 1,
        "decoder_depth": 1,
        "norm_pix_loss": True,
        "mlp_ratio": 2.0,
        "norm_eps": 1e-6,
    }
    assert {name: config[name] for name in own} == own
    assert found["MAE"]["module"] == f"polymae.backends.{framework}.model"
    if framework != "numpy":
        assert found["partial"]["config"] == {**config, "norm_eps": 1e-4}
        assert found["layer"]["config"] == {**config, "norm_eps": found["usual eps"]}
        assert found["usual eps"] == (1e-7 if framework == "mindspore" else 1e-5)
    for name in ("odd norm", "odd setting"):
        if name in found:
            assert "ConfigError" in found[name]["kinds"]
            assert "LayerNorm" in found[name]["error"]


def test_the_official_constructor_finds_published_weights_for_published_sizes() -> None:
    with pytest.raises(Problem, match=r"without a decoder.*visualize \(mae_visualize_vit_large"):
        entries("numpy")["MAE"](pretrained="pretrain")
    with pytest.raises(Problem, match="No pretrain weights are published for a model of these sizes"):
        entries("numpy")["MAE"](decoder_depth=4, pretrained="pretrain")


def test_errors_say_what_to_do(framework: str) -> None:
    found = said(framework).json["more"]
    assert "mae_vit_bas_patch16" in found["unknown entry"]["error"]
    wanted = {
        "unknown setting": "num_layers.*num_heads",
        "no such file": "nowhere.pth",
        "missing framework": r"is not installed.*pip install.*requirements/\w+\.txt",
    }
    for name, pattern in wanted.items():
        assert "Problem" in found[name]["kinds"]
        assert re.search(pattern, found[name]["error"]), found[name]


@pytest.mark.parametrize(
    ("framework", "names"),
    [
        ("torch", ["cached", "numpy's"]), ("oneflow", ["cached", "numpy's"]), ("megengine", ["fetched again", "torch's"]),
        ("mindspore", ["its own file", "in capitals", "create_model"]),
    ],
)  # fmt: skip
def test_other_ways_to_the_same_weights(framework: str, names: list[str]) -> None:
    require(framework)
    found = said(framework).json["more"]
    for name in names:
        expected = name.removesuffix("'s") if name.endswith("'s") else framework
        assert found[name].get("module") == f"polymae.backends.{expected}.model", found[name]
        assert found[name]["hash"] == content_hash(WEIGHTS)


def test_names_that_are_nearly_right() -> None:
    assert "say for which framework" in said("numpy").json["more"]["not told"]["error"]
    if "mindspore" in frameworks_under_test():
        assert "Nearest names: mae_vit_base_patch16" in said("mindspore").json["more"]["no such network"]["error"]


def test_another_version_in_the_same_process_is_announced(framework: str) -> None:
    before, _, after = said(framework).stderr.partition("second version:")
    assert "already imported" not in before
    assert after.count("polymae: already imported from") == 1
    assert said(framework).json["root"] in after


@pytest.mark.parametrize("name", STRANGERS)
def test_the_strangers_modules_would_be_noticed(name: str) -> None:
    done = run(["-c", f"import {name}"])
    assert "a stranger's module was imported" in done.stderr


RUN = """
import importlib.util, json, sys
if sys.argv[2] == "imported":
    import polymae.backends
spec = importlib.util.spec_from_file_location("hubconf.py", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
model = module.mae_vit_test_patch8(framework="numpy")
print(json.dumps([sys.modules[type(model).__module__].__file__, sys.modules["polymae.hub.loading"].__file__]))
"""


def loaded(folder: str, when: str) -> tuple[list[str], str]:
    """Files that a model came from where PolyMAE is installed as well, imported before the hub or not, and stderr."""
    done = run(["-c", RUN, f"{folder}/hubconf.py", when])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_an_installed_polymae_gives_way_unless_it_was_imported() -> None:
    # The tests' environment has the working tree installed.
    root = folders()["root"]
    files, stderr = loaded(root, "not imported")
    assert all(file.startswith(root) for file in files)
    assert "already imported" not in stderr
    files, stderr = loaded(root, "imported")
    assert all(file.startswith(str(ROOT)) for file in files)
    assert f"polymae: already imported from {ROOT}/src/polymae, so {root}/src/polymae is not used." in stderr
    files, stderr = loaded(str(ROOT), "imported")  # the same folder twice
    assert all(file.startswith(str(ROOT)) for file in files)
    assert "already imported" not in stderr


def test_an_old_python_is_told_so() -> None:
    code = "import runpy, sys; sys.version_info, sys.version = (3, 9, 1), '3.9.1 (old)'; runpy.run_path(sys.argv[1])"
    done = run(["-c", code, f"{folders()['root']}/hubconf.py"])
    assert "ImportError: PolyMAE needs Python 3.10 or newer, and this is Python 3.9.1." in done.stderr
