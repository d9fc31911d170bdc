"""A pre-training that takes a second: 40 crops of the demo's photographs in two classes, and a model of 9,000 values."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from children import run
from PIL import Image

from polymae.backends.blas import thread_variables, variables
from polymae.data.images import demo_photographs
from polymae.training import checkpoints
from polymae.training.reading import read_recipe
from polymae.training.recipe import Recipe

MODEL = (
    "img_size=16,patch_size=4,embed_dim=16,depth=1,num_heads=2,decoder_embed_dim=16,decoder_depth=1,decoder_num_heads=2"
)
# 4 steps an epoch, 12 steps in all.
SETTINGS = (
    f"model={MODEL}", "batch_size=10", "epochs=3", "warmup_epochs=1", "lr=1e-3", "workers=0", "tensorboard=false",
    "save_every_epochs=null", "pictures_every_epochs=null",
)  # fmt: skip
STEPS = 12


def tiny_recipe(*settings: str) -> Recipe:
    """The recipe, with other settings."""
    return read_recipe(None, (*SETTINGS, *settings))


def tiny_data(folder: Path) -> Path:
    """An ImageFolder of 40 PNG files of 24 x 20 pixels."""
    photographs = [np.asarray(Image.open(path).convert("RGB")) for path in demo_photographs()]
    rng = np.random.Generator(np.random.Philox(0))
    for number in range(40):
        photograph = photographs[number % 2]
        top, left = (int(rng.integers(whole - part)) for whole, part in zip(photograph.shape, (20, 24)))
        path = folder / f"class{number % 2}" / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph[top : top + 20, left : left + 24]).save(path)
    return folder


def command(framework: str, data: Path, out: Path, *settings: str) -> list[str]:
    """The arguments of Python that pre-train in a process of its own."""
    return [
        sys.executable, "-m", "polymae", "pretrain", "--framework", framework, "--data", str(data), "--out", str(out),
        "--threads", "1", "--recipe", str(written(out.parent)), "--set", *(settings or ["seed=0"]),
    ]  # fmt: skip


_SEVERAL = """
import json, sys
from polymae.cli import main
for words in json.loads(sys.argv[1]):
    if status := main(words):
        sys.exit(status)
"""


def several(framework: str, *commands: list[str]) -> None:
    """Run commands of `polymae` one after the other in one process, which imports its framework but once.

    It starts with the variables with which the command itself begins anew (cli/training.py).
    """
    env = os.environ | variables(framework) | thread_variables(1)
    run([sys.executable, "-c", _SEVERAL, json.dumps([words[3:] for words in commands])], check=True, text=True, env=env)


def written(folder: Path) -> Path:
    """The recipe as a file."""
    from polymae.training.reading import as_yaml

    path = folder / "tiny.yaml"
    path.write_text(as_yaml(tiny_recipe()))
    return path


def lines(run: Path, name: str = "steps.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def assert_same_run(one: Path, other: Path) -> None:
    """Every step's line, the weights, the moments and the average of the weights, if there is one, bit for bit."""
    assert (one / "steps.jsonl").read_text() == (other / "steps.jsonl").read_text()
    mine, theirs = (
        {path.name: path.read_bytes() for path in (run / checkpoints.FOLDER / checkpoints.LAST).glob("*.safetensors")}
        for run in (one, other)
    )
    assert {checkpoints.WEIGHTS, checkpoints.MOMENTS} <= mine.keys()
    assert mine.keys() == theirs.keys()
    assert not [name for name in mine if mine[name] != theirs[name]]
