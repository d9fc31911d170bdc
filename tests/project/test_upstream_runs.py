"""docs/upstream.md: every line of its right columns runs on the small model, and leaves its product."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pages
import pytest
from frameworks import frameworks_under_test
from made_images import folder_of_classes, write
from untested import require
from upstream_page import LINES, PAIRS, known, option, settings_of, words_in

from polymae.backends import FRAMEWORKS
from polymae.backends.config import Config
from polymae.backends.initial import initial_weights
from polymae.backends.presets import model_config
from polymae.backends.runtime import load_backend
from polymae.backends.spec import encoder_params
from polymae.cli.convert_weights import main as convert
from polymae.convert.writing import official_checkpoint
from polymae.training.reading import KINDS, read_any_recipe

CLASSES = tuple(f"n{number:08}" for number in range(10))
SMALLER = {  # settings behind those of a line
    "batch_size": "4", "accumulate": "1", "steps": "1", "workers": "0", "precision": "float32", "compiled": "false",
    "tensorboard": "false", "pictures_every_epochs": "null", "evaluation_batch": "8",
}  # fmt: skip


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the lines take from elsewhere, of the small model."""
    folder = tmp_path_factory.mktemp("upstream")
    folder_of_classes(folder / "IMAGENET" / "train", 2, CLASSES)
    folder_of_classes(folder / "IMAGENET" / "val", 1, CLASSES)
    for part in ("train", "val"):
        paths = sorted((folder / "IMAGENET" / part).rglob("*.png"))
        rows = [f"{path.relative_to(folder)}, {CLASSES.index(path.parent.name)}" for path in paths]
        (folder / f"{part}.txt").write_text("\n".join(rows) + "\n")
    write(folder / "photos" / "fox.png")
    mae, vit = model_config("mae_vit_test_patch8"), model_config("vit_test_patch8")
    probe = model_config("vit_test_patch8", pooling="cls", head_norm=True)
    official_checkpoint(folder / "mae_visualize_vit_base.pth", mae, initial_weights(mae, 1))
    weights = initial_weights(mae, 2)
    encoder = {param.name: weights[param.name] for param in encoder_params(mae)}
    for size in ("base", "large", "huge"):
        official_checkpoint(folder / f"mae_pretrain_vit_{size}.pth", mae, encoder)
        official_checkpoint(folder / f"mae_finetuned_vit_{size}.pth", vit, initial_weights(vit, 3))
    official_checkpoint(folder / "probe.pth", probe, initial_weights(probe, 4))
    for name, model, target, dialect in (
        ("mae_vit_base_p16.ckpt", "mae_visualize_vit_base.pth", "mindspore", "mindformers-0.8"),
        ("vit_base_p16.ckpt", "mae_finetuned_vit_base.pth", "mindspore", "mindformers-0.8"),
        ("libai_model", "mae_visualize_vit_base.pth", "oneflow", "libai"),
        ("libai_classifier", "mae_finetuned_vit_base.pth", "oneflow", "libai"),
    ):
        assert convert([target, "-c", str(folder / model), "-o", str(folder / name), "--to", dialect]) == 0
    for name, preset in (
        ("flyegle_mae.pth", "flyegle_mae_vit_test_patch8"),
        ("weights.pth", "flyegle_vit_test_patch8"),
    ):
        config = model_config(preset)
        weights = initial_weights(config, 5)
        if "mask_token" in weights:  # FlyEgle's has one value for every 16 entries
            weights["mask_token"] = np.repeat(weights["mask_token"][..., ::16], 16, axis=-1)
        official_checkpoint(folder / f"plain-{name}", config, weights)
        line = ["torch", "-c", str(folder / f"plain-{name}"), "-o", str(folder / name), "-m", preset, "--to", "flyegle"]
        assert convert(line) == 0
    return folder


@pytest.fixture
def folder(things: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, the working folder."""
    shutil.copytree(things, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def smaller(words: list[str], framework: str) -> list[str]:
    """A line of ours on the small model, in a framework, on the CPU."""
    words = [pages.small(word) for word in words]
    if "--framework" in words:
        words[words.index("--framework") + 1] = framework
    if "--device" in words:
        place = words.index("--device")
        del words[place : place + 2]
    if words[0] != "polymae" or words[1] not in KINDS:
        return words + pages.cheaper(words)
    recipe = option(words, "--recipe")
    settings = dict(SMALLER)
    if recipe is None:  # it goes on, with what it was
        settings = {"steps": "2" if "--out" not in words else "11", "workers": "0", "compiled": "false"}
        words += ["--framework", framework] if "--framework" not in words else []
    else:
        model = read_any_recipe(recipe, settings_of(words)).model  # type: ignore[attr-defined]
        settings["model"] = re.sub(r"(tiny|small|base|large|huge)_patch\d+", "test_patch8", model)
    there = known(words[1])
    return [*words, "--set", *(f"{name}={value}" for name, value in settings.items() if name in there)]


def prepared(words: list[str], framework: str, folder: Path) -> None:
    """Make what a line goes on from: a run of ours, or a file that a script's training would have left."""
    source = option(words, "--resume") or ""
    if source.endswith(".pth"):
        require("torch")
        training_checkpoint(folder / source)
    elif source:
        line = f"polymae {words[1]} --framework {framework} --data IMAGENET --out {source} --recipe official-base"
        assert pages.called(smaller(shlex.split(line), framework)) == 0
    elif (option(words, "--weights") or "").startswith("OUT/"):
        (folder / "OUT").mkdir()
        shutil.copy(folder / "probe.pth", folder / (option(words, "--weights") or ""))


def training_checkpoint(path: Path) -> None:
    """As the official script saves it after an epoch, of the small model, whose moments are zeros."""
    import torch

    config: Config = model_config("mae_vit_test_patch8")
    model = load_backend("torch").build(config, initial_weights(config, 1))
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    spared = [p for name, p in trained if p.ndim == 1 or name.endswith(".bias")]
    decayed = [p for name, p in trained if not (p.ndim == 1 or name.endswith(".bias"))]
    optimizer = torch.optim.AdamW([{"params": spared, "weight_decay": 0.0}, {"params": decayed}], lr=1e-3)
    for _, parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    args = argparse.Namespace(model="mae_vit_test_patch8", epochs=4, batch_size=2, accum_iter=1, blr=1e-3, lr=1e-3)
    path.parent.mkdir()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 0, "args": args}, path)


def trained(words: list[str], printed: str) -> None:
    run = Path(option(words, "--out") or option(words, "--resume") or "")
    assert (run / "checkpoints/last/weights.safetensors").is_file()
    assert all(json.loads(line)["loss"] > 0 for line in (run / "steps.jsonl").read_text().splitlines())


def measured(words: list[str], printed: str) -> None:
    part = option(words, "--part")
    if part:
        assert Path(option(words, "--scores") or "").is_file()
    else:
        assert re.search(r"top-1 +\d+\.\d+ .*\(\d+ images", printed)


def predicted(words: list[str], printed: str) -> None:
    assert "photos/fox.png" in printed
    assert printed.count("%") == 5


def compared(words: list[str], printed: str) -> None:
    assert "roundoff" in printed or "explained" in printed


def converted(words: list[str], printed: str) -> None:
    (path,) = re.findall(r"^wrote +(.*?): \d+ tensors", printed, re.MULTILINE)
    assert Path(path).exists()
    assert path == (option(words, "-o") or option(words, "--mindspore_path") or f"pretrained/{option(words, '-m')}.pkl")


PRODUCTS: dict[str, Callable[[list[str], str], None]] = {
    "pretrain": trained, "finetune": trained, "linprobe": trained, "evaluate": measured, "knn": measured,
    "predict": predicted, "compare": compared, "convert_weights": converted,
}  # fmt: skip


def runs() -> list[tuple[str, tuple[str, ...]]]:
    """The lines of each cell, once, with the frameworks that they are run in: their own, and NumPy."""
    cells = [tuple(words_in(here)) for _, here in PAIRS if re.match("`(polymae|convert_weights) ", here)]
    there = frameworks_under_test()
    return [
        (framework, cell)
        for cell in dict.fromkeys(cells)
        for framework in dict.fromkeys(("numpy", own_framework(shlex.split(cell[0]))))
        if framework in there
    ]


def own_framework(words: list[str]) -> str:
    """The one that a line names; a run is gone on with in PyTorch."""
    return option(words, "--framework") or ("torch" if "--resume" in words else "numpy")


@pytest.mark.parametrize(("framework", "cell"), runs(), ids=[f"{run[0]}-{number}" for number, run in enumerate(runs())])
def test_a_line_runs_and_leaves_its_product(
    framework: str, cell: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in cell:
        words = shlex.split(line)
        prepared(words, framework, folder)
        small = smaller(words, framework)
        capsys.readouterr()
        status = pages.called(small)
        told = capsys.readouterr()
        assert status == 0, f"{shlex.join(small)}\n{told.err[-2000:]}"
        PRODUCTS[words[1] if words[0] == "polymae" else words[0]](small, told.out)


def test_every_framework_has_a_line() -> None:
    there = {option(shlex.split(line), "--framework") for line in LINES}
    assert there >= set(FRAMEWORKS) - {"numpy"}
