"""The pages' commands and Python are run, on the small model: what is neither run nor listed as impossible here fails."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import children
import numpy as np
import pages
import pytest
from checkpoints import CONFIG, WEIGHTS
from frameworks import frameworks_under_test
from made_images import folder_of_classes, write
from pages import PAGES, Line, blocks, commands, refusal, run
from published import FILES, publish
from repository import ROOT
from runs import oracle, plain, twins
from server import Server
from untested import require

from polymae.backends.initial import initial_weights
from polymae.backends.presets import model_config
from polymae.cli.convert_weights import main as convert
from polymae.compare.record.inputs import random_inputs
from polymae.convert.writing import official_checkpoint

# Commands that are not run, and why. Those of ours are parsed all the same.
NOT_RUN = {
    "polymae env add oneflow": "it needs a network; test_pythons.py runs it",
    "polymae env use megengine PATH/bin/python": "it would change what this environment remembers; test_env.py runs it",
    "polymae data get mnist-10k": "it needs a network; test_known.py runs it where there is one",
    "polymae data get elpv --out cells": "it fetches 91 MB; test_known.py runs it on a small package",
    "polymae preflight --framework torch --data mnist-10k --recipe small-cpu --out reports/": (
        "it takes minutes; test_preflight.py runs it on a tiny model"
    ),
    "polymae finetune --framework torch --data mnist-10k --weights runs/digits --out runs/tuned --recipe small-cpu-finetune": (
        "it takes minutes; test_finetune.py runs it on a tiny model"
    ),
    "polymae linprobe --framework torch --data mnist-10k --weights runs/digits --out runs/probe --recipe small-cpu-linprobe": (
        "it takes minutes; test_linprobe.py runs it on a tiny model"
    ),
    "polymae finetune --resume runs/tuned": "the run takes minutes; test_finetune.py goes on with tiny ones",
    "polymae run run_mae_vit_base_p16_224_800ep.yaml --framework mindspore --train_dataset_dir imagenet/train": (
        "no file of mindformers' is there; test_run.py runs such files, of a tiny model"
    ),
    "polymae run run_vit_base_p16_224_100ep.yaml --run_mode finetune --load_checkpoint mae_pretrain_vit_base": "the same",
    "polymae runs compare runs/digits --reference small-cpu": "the run takes minutes; test_runs.py compares tiny ones",
    "polymae runs compare runs/digits --reference small-cpu --out reports/": "the same",
    "polymae runs compare runs/torch runs/mindspore runs/oneflow": "the same",
    '"$(polymae env path oneflow)" train.py': "no environment of OneFlow's was made; test_env.py runs it",
    ".venv/bin/python tests/fuzz.py --count 20000 --seed 1": "it takes an hour; test_fuzz.py runs fewer",
    ".venv/bin/pytest -W ignore -n2 --dist loadfile tests/convert/test_convert.py": "tests do not run tests",
    "POLYMAE_FRAMEWORKS=numpy .venv/bin/coverage run --source=polymae -m pytest -W ignore $(.venv/bin/python tests/pythons.py)": (
        "tests do not run tests"
    ),
    ".venv/bin/coverage report --skip-covered": "there is nothing to report of",
}
TEXT = {path.relative_to(ROOT).as_posix(): path.read_text() for path in PAGES}


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the pages' commands and Python take from elsewhere, of the small model."""
    folder = tmp_path_factory.mktemp("things")
    for name in ("mae_visualize_vit_base.pth", "mae.pth"):
        official_checkpoint(folder / name, CONFIG, WEIGHTS)
    tuned = model_config("vit_test_patch8", num_classes=10, img_size=320)
    official_checkpoint(folder / "tuned.pth", tuned, initial_weights(tuned, seed=3))
    (folder / "facebook").mkdir()
    for target, name in (
        ("mindspore", "mae.ckpt"),
        ("huggingface", "vit-mae-base"),
        ("huggingface", "facebook/vit-mae-base"),
    ):
        assert convert([target, "-c", str(folder / "mae.pth"), "-o", str(folder / name)]) == 0
    shutil.copy(next((ROOT / "demo" / "photos").glob("*.jpg")), folder / "cat.jpg")
    np.savez(folder / "in.npz", **random_inputs(CONFIG))
    names = [f"n{number:08}" for number in range(10)]
    folder_of_classes(folder / "imagenet" / "train", 3, tuple(names))
    folder_of_classes(folder / "imagenet" / "val", 1, tuple(names))
    for name in ("imagenet-a", "imagenet-r"):
        folder_of_classes(folder / name, 1, tuple(names[3:6]))
    for name in ("imagenet-sketch", "imagenet-c/fog/1", "imagenet-c/fog/2", "imagenet-c/snow/1"):
        folder_of_classes(folder / name, 1, tuple(names))
    (folder / "subset.csv").write_text(f"imagenet-sketch/{names[2]}/0.png,2\nimagenet-sketch/{names[5]}/0.png,5\n")
    write(folder / "photos" / "fox.png")
    for name in ("wnids.txt", "imagenet-classes.txt"):
        (folder / name).write_text("\n".join(names))
    small_one = model_config("vit_test_patch8")
    official_checkpoint(folder / "finetuned.pth", small_one, initial_weights(small_one, seed=4))
    (folder / "mnist-10k").mkdir()
    for part in ("train", "val"):
        np.savez(
            folder / "mnist-10k" / f"{part}.npz", imgs=np.zeros((130, 28, 28), np.uint8), labels=np.arange(130) % 10
        )
    return folder


@pytest.fixture
def folder(things: Path, tmp_path: Path, server: Server, warm: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, the working folder; what is published is on a server of this machine."""
    shutil.copytree(things, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("POLYMAE_MIRROR", raising=False)
    monkeypatch.setenv("POLYMAE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("POLYMAE_REGISTRY", str(publish(tmp_path / "published", f"{server.base}/")))
    for path in FILES.values():
        server.add(f"/{path}", (tmp_path / "published" / path).read_bytes())
    return tmp_path / "here"


def add_traces(folder: Path) -> None:
    """Put the traces there that were recorded elsewhere."""
    shutil.copy(oracle(), folder / "oracle.npz")
    shutil.copy(plain(), folder / "torch.npz")
    for number, path in enumerate(twins(), 1):
        shutil.copy(path, folder / f"twin{number}.npz")


@pytest.mark.parametrize("page", TEXT)
def test_the_commands_of_a_page_run(page: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = []
    if not any(line.text.startswith("polymae record") for line in commands(page, TEXT[page])):
        add_traces(folder)
    for line in commands(page, TEXT[page]):
        if "--atol" in line.text and "torch" not in frameworks_under_test():
            problem = refusal(line.text.split())
        else:
            problem = "" if line.text in NOT_RUN else run(line, folder)
        if problem:
            wrong.append(f"{line}\n    {problem}\n    {capsys.readouterr().err.strip()[-1000:]}")
    assert not wrong, "\n".join(wrong)


def test_what_is_not_run_stands_on_a_page_and_is_understood() -> None:
    there = {line.text for page, text in TEXT.items() for line in commands(page, text)}
    assert set(NOT_RUN) <= there
    for command in NOT_RUN:
        called = re.search(r"(^|\()(polymae [^)]*)", command)
        if called:
            assert refusal(called[2].split()) == ""
        else:
            named = re.findall(r"\.venv/bin/\w+|tests/\w+\.py", command)
            assert named
            assert all((ROOT / name).is_file() for name in named), command


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("polymae compare --wieghts mae.ckpt", "not understood"),
        ("polymae conpare -m mae_vit_base_patch16", "not understood"),
        ("convert_weights jax -c mae.pth", "not understood"),
        ("convert_weights torch -c gone.pth -o mae.pth", "ended with status 2"),
        ("make demonstration", "No rule"),
        ("polymae-compare -m mae_vit_base_patch16", "neither run nor listed"),
        ("pip install -e .", "neither run nor listed"),
    ],
)
def test_a_wrong_command_on_a_page_would_be_seen(command: str, said: str, folder: Path) -> None:
    (line,) = commands("planted.md", f"text\n\n```\n# a comment\n{command}   # and one more\n```\n")
    assert line == Line("planted.md", 5, command)
    assert said in run(line, folder)


@pytest.mark.parametrize("page", TEXT)
def test_every_block_says_what_it_is(page: str) -> None:
    for block in blocks(page, TEXT[page]):
        assert block.language in ("", "python", "text"), block.lines[0]
        for line in block.lines if block.language == "text" else ():
            assert not re.match(r"(polymae|convert_weights|make|python|pip|uv|git|[A-Z_]+=\S*) ", line.text), line


def test_the_python_of_the_pages_runs(framework: str, folder: Path) -> None:
    if framework == "numpy":
        require("torch")  # no page has Python of NumPy's alone but the worked examples
        return
    statements = [
        (str(line), code) for page, text in TEXT.items() for line, code in pages.python(page, text, framework)
    ]
    assert statements
    (folder / "statements.json").write_text(json.dumps(statements))
    command = [sys.executable, ROOT / "tests" / "pages_child.py", framework, ROOT, "statements.json"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PROTOCOL_BUFFERS_")}
    done = children.run(command, text=True, cwd=folder, env=clean)
    assert done.returncode == 0, done.stderr[-3000:]
