"""The loops of docs/interfaces.md, as they stand there: our batches reach other programs' trainers as they are, in order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_images import folder_of_classes
from pages import blocks, small
from published import MODEL
from repository import ROOT
from untested import require

from polymae.backends.runtime import load_backend
from polymae.data.batches import Batches
from polymae.hub import load


def done(mark: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the page's block with this mark in it leaves, when it has run in a folder with images."""
    folder_of_classes(folder / "imagenet", 6)
    monkeypatch.chdir(folder)
    page = "docs/interfaces.md"
    codes = ["\n".join(line.text for line in block.lines) for block in blocks(page, (ROOT / page).read_text())]
    (code,) = [code for code in codes if mark in code]
    names: dict[str, Any] = {}
    script = folder / "block.py"  # a person's file: MindSpore reads the source of a generator that it is given
    script.write_text(small(code))
    exec(compile(script.read_text(), str(script), "exec"), names)
    return names


def losses(framework: str, batches: Batches, count: int) -> list[float]:
    """Of the first batches by the untrained model."""
    runtime, model = load_backend(framework), load(MODEL, framework)
    found = []
    for step in range(count):
        batch = runtime.tensors(model, batches.batch(step))
        with runtime.no_grad():
            found.append(float(runtime.to_numpy(model(batch["imgs"], batch["noise"], 0.75)[0])))
    return found


def changed(framework: str, model: Any) -> set[str]:
    """The parameters that training has changed."""
    runtime = load_backend(framework)
    before, after = runtime.weights(load(MODEL, framework)), runtime.weights(model)
    assert all(np.isfinite(array).all() for array in after.values())
    return {name for name in before if (before[name] != after[name]).any()}


def test_a_torch_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    require("torch")
    names = done("loader(first=0", tmp_path, monkeypatch)
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [step for step, _ in told] == ["0", "1"]
    assert float(told[0][1]) == pytest.approx(losses("torch", names["batches"], 1)[0], rel=1e-5)
    assert {"cls_token", "decoder_pred.weight"} <= changed("torch", names["net"])
    assert "pos_embed" not in changed("torch", names["net"])


def test_a_transformers_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("torch")
    names = done("transformers.Trainer", tmp_path, monkeypatch)
    logged = [line["loss"] for line in names["trainer"].state.log_history if "loss" in line]
    first, second = losses("torch", names["batches"], 2)
    assert abs(first - second) > 0.01  # they can be told apart
    assert logged[0] == pytest.approx(first, abs=1e-3)
    assert len(logged) == 2
    assert {"cls_token", "decoder_pred.weight"} <= changed("torch", names["net"])


def test_a_mindspore_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    require("mindspore")
    names = done("mindspore.train.Model", tmp_path, monkeypatch)
    told = [float(one) for one in re.findall(r"loss is ([\d.]+)", capfd.readouterr().out)]
    assert len(told) == 2
    assert told[0] == pytest.approx(losses("mindspore", names["batches"], 1)[0], rel=1e-4)
    assert {"cls_token", "decoder_pred.weight"} <= changed("mindspore", names["net"])
    assert "pos_embed" not in changed("mindspore", names["net"])
