"""An evaluation by several processes: the numbers of one, bit for bit; whatever ends it, nothing is left running."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_classifier
from children import comes, gone, heard
from tiny_classifier import CLASSES, COUNT, MODEL, images

from polymae.cli import main
from polymae.data.augment import Augmentation
from polymae.data.batches import Batches
from polymae.data.datasets import open_dataset
from polymae.files.errors import Problem
from polymae.training import processes
from polymae.training.evaluate import Evaluation, evaluate, evaluate_model, evaluate_part
from polymae.training.measured import Asked, ready
from polymae.training.parts import read_part
from polymae.training.processes import evaluate_in_processes

TOTAL = len(CLASSES) * COUNT


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_classifier.evaluated(tmp_path_factory.mktemp("evaluated"))


def evaluation(there: Path, framework: str = "numpy", **options: Any) -> Evaluation:
    asked = {name: options.pop(name) for name in [*options] if name in Asked.__dataclass_fields__}
    given = {"batch_size": 5, "workers": 1, **options}
    return Evaluation(Asked(framework, there / "tuned.pth", MODEL, threads=1, **asked), there / "data", **given)


def test_two_processes_give_the_numbers_of_one(framework: str, there: Path) -> None:
    totals: list[int] = []
    done: list[int] = []
    whole = evaluate_part(evaluation(there, framework))
    shared = evaluate_in_processes(evaluation(there, framework), 2, totals.append, done.append)
    assert shared.facts(True) == whole.facts(True)
    for name in ("places", "labels", "predictions", "ranks", "losses"):
        assert np.array_equal(getattr(shared.scores, name), getattr(whole.scores, name))
    assert totals == [TOTAL]
    assert (sum(done), len(done)) == (TOTAL, -(-TOTAL // 5))


def test_every_option_reaches_them(there: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(there)
    names = tmp_path / "names.txt"
    names.write_text("\n".join(name.upper() for name in CLASSES))
    config = tmp_path / "model.json"
    config.write_text(json.dumps({"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3,
                                  "num_classes": len(CLASSES), "pooling": "gap"}))  # fmt: skip
    options = {
        "model": os.path.relpath(config), "names": os.path.relpath(names), "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.2, 0.3),
        "crop_ratio": 0.9, "image_size": (40, 48), "dtype": "float64", "batch_size": 20, "data_format": "folder",
    }  # fmt: skip
    one, several = (evaluate("numpy", "data", "tuned.pth", processes=count, **options) for count in (1, 9))
    assert several.facts() == one.facts()
    assert one.per_class[0]["name"] == "ANT"
    assert one.loss != evaluate("numpy", "data", "tuned.pth", model=MODEL).loss


def test_no_more_processes_than_batches(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Any] = []
    popen = subprocess.Popen

    def counted(*args: Any, **options: Any) -> Any:
        begun.append(popen(*args, **options))
        return begun[-1]

    monkeypatch.setattr(subprocess, "Popen", counted)
    result = evaluate_in_processes(evaluation(there, batch_size=30), 7).result()
    assert (len(begun), result.n) == (2, TOTAL)
    assert all(process.returncode == 0 for process in begun)


def test_a_part_that_fails_ends_all_with_its_reason(
    there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = images(tmp_path / "data")
    (data / "eel" / "3.png").write_bytes(b"no image")
    begun: list[Any] = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **given: begun.append(popen(*args, **given)) or begun[-1])
    broken = Evaluation(Asked("numpy", there / "tuned.pth", MODEL), data, batch_size=5)
    with pytest.raises(Problem, match=r"Part 2 of 3: .*eel/3\.png"):
        evaluate_in_processes(broken, 3)
    assert len(begun) == 3
    assert all(process.returncode is not None for process in begun)
    with pytest.raises(Problem, match="has no labels"):  # nothing is begun
        evaluate_in_processes(Evaluation(broken.asked, data / "ant"), 2)
    with pytest.raises(Problem, match="0 processes"):
        evaluate_in_processes(broken, 0)
    assert len(begun) == 3


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("kill -9 $$", r"Part \d of 2: the process was killed by SIGKILL \(out of memory\?\)"),
        ("echo 'no such kernel' >&2; exit 3", r"ended with status 3 .* last words: no such kernel"),
        ("exit 0", "ended with status 0 and left no scores"),
        ('echo 7; echo []; echo \'{"problem": "too hot"}\'; sleep 600', r"Part \d of 2: too hot"),
    ],
)
def test_a_process_that_dies(
    there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(processes, "interpreter", lambda framework: str(python))
    with pytest.raises(Problem, match=said):
        evaluate_in_processes(evaluation(there), 2)


def children_of(process: int) -> list[int]:
    """Its children, in whichever of its threads they were begun."""
    return [int(pid) for path in Path(f"/proc/{process}/task").glob("*/children") for pid in path.read_text().split()]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_nothing_is_left_running(there: Path, number: signal.Signals, status: int) -> None:
    command = [
        sys.executable, "-m", "polymae", "evaluate", "--framework", "numpy", "--weights", str(there / "tuned.pth"), "-m", MODEL,
        "--data", str(there / "data"), "--batch-size", "5", "--processes", "3", "--threads", "1",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    assert comes(lambda: len(children_of(process.pid)) == 3)
    begun = children_of(process.pid)
    for child in begun:
        os.kill(child, signal.SIGSTOP)  # so that none ends by itself
    process.send_signal(number)
    assert process.wait() == status
    for child in begun:  # one that the signal came too early for ends with its parent's end of the pipe
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGCONT)
    heard(process)
    assert all(map(gone, begun))


def test_the_command(there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = [
        "evaluate", "--framework", "numpy", "--weights", str(there / "tuned.pth"), "-m", MODEL, "--data", str(there / "data"),
        "--batch-size", "5", "--json", "--official-loss",
    ]  # fmt: skip
    told = []
    for more in ([], ["--processes", "2", "--scores", str(tmp_path / "all.npz"), "--out", str(tmp_path / "all.json")]):
        assert main([*line, *more]) == 0
        told.append(json.loads(capsys.readouterr().out))
    assert told[0] == told[1] == json.loads((tmp_path / "all.json").read_text())
    assert read_part(tmp_path / "all.npz").whole
    assert main([*line, "--processes", "2", "--part", "1/2", "--scores", str(tmp_path / "1.npz")]) == 2
    assert "leave out --part" in capsys.readouterr().err
    assert main(["evaluate", "--merge", str(tmp_path / "all.npz"), "--processes", "2"]) == 2
    assert "leave out --processes" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*line, "--processes", "0"])


@pytest.mark.parametrize("ratio", [None, 0.95, 1.0])
def test_the_crop_ratio_is_that_of_the_middle(
    there: Path, ratio: float | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By Batches whose images are resized and cropped by hand."""
    from PIL import Image

    class ByHand(Augmentation):
        def _cropped(self, image: Image.Image, seed: int, epoch: int, index: int) -> Image.Image:
            short = int(32 / (224 / 256 if ratio is None else ratio))
            width, height = image.size
            size = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
            image = image.resize(size, Image.Resampling.BICUBIC)
            left, top = round((image.width - 32) / 2), round((image.height - 32) / 2)
            return image.crop((left, top, left + 32, top + 32))

    model = ready(Asked("numpy", there / "tuned.pth", MODEL))
    batches = Batches(
        open_dataset(there / "data", None, "val"),
        ByHand(32, crop="centre", flip=0.0),
        64,
        0,
        drop_last=False,
        shuffle=False,
    )
    expected = evaluate_model(model.runtime, model.model, batches)
    assert evaluate("numpy", there / "data", there / "tuned.pth", model=MODEL, crop_ratio=ratio).loss == expected.loss
    given = [] if ratio is None else ["--crop-ratio", str(ratio)]
    line = ["--framework", "numpy", "--weights", str(there / "tuned.pth"), "-m", MODEL, "--json", *given]
    assert main(["evaluate", "--data", str(there / "data"), *line]) == 0
    assert json.loads(capsys.readouterr().out)["loss"] == expected.loss
    assert main(["predict", str(there / "data/val/cat/0.png"), *line]) == 0
    top = json.loads(capsys.readouterr().out)["top"][0]
    place = CLASSES.index("cat") * COUNT
    imgs = batches.batch(0)["imgs"][place : place + 1]
    logits = np.asarray(model.model(model.runtime.tensors(model.model, {"imgs": imgs})["imgs"]), np.float64)
    assert top["class"] == int(logits.argmax())
    shares = np.exp(logits - logits.max())
    assert top["probability"] == pytest.approx(shares.max() / shares.sum(), rel=1e-5)


def test_parts_of_another_crop_are_others(there: Path, tmp_path: Path) -> None:
    for number, ratio in enumerate((0.9, 0.95)):
        evaluate_part(evaluation(there, crop_ratio=ratio, part=(number, 2))).save(tmp_path / f"{number}.npz")
    problem = subprocess.run(
        [sys.executable, "-m", "polymae", "evaluate", "--merge", str(tmp_path / "0.npz"), str(tmp_path / "1.npz")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert problem.returncode == 2
    assert re.search(r"crop_ratio 0\.9 and 0\.95", problem.stderr)
    with pytest.raises(Problem, match="crop_ratio is 1.5"):
        evaluate_part(evaluation(there, crop_ratio=1.5))
