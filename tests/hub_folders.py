"""The repository as a stranger unpacks it, and what each framework's hub made of it in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import children
import numpy as np
from numpy.typing import NDArray
from published import publish
from repository import ROOT, repository_files

from polymae.backends.initial import initial_weights
from polymae.backends.presets import model_config
from polymae.cli.convert_weights import main as convert
from polymae.compare.record.inputs import random_inputs
from polymae.convert.writing import official_checkpoint

NAME = "mae_vit_test_patch8"
CONFIG = model_config(NAME)
WEIGHTS = initial_weights(CONFIG, seed=6)
INPUTS = random_inputs(CONFIG)
# Names of our folders, and of hubconf.py, which a user's own modules may have as well.
STRANGERS = ("backends", "cli", "compare", "convert", "demo", "hub", "hubconf", "tests")
UNPACKED = "my models-main (1)"
CHILD = Path(__file__).with_name("hub_child.py")
_KEPT = tempfile.TemporaryDirectory(prefix="polymae-hubs-")  # removed when the tests end
FOLDER = Path(_KEPT.name).resolve()
# What mindspore_hub wants to read at the head of a network's page.
PAGE = f"""---
backbone-name: {NAME}
module-type: cv
fine-tunable: True
model-version: 1
author: someone
update-time: 2026-01-01
repo-link: <https://gitee.com/someone/{UNPACKED}>
user-id: someone
used-for: transfer-learning
train-dataset: imagenet2012
mindspore-version: 2.9
license: Apache-2.0
summary: a masked autoencoder
asset:
-
    file-format: ckpt
    asset-link: <https://download.example.com/someone/small.ckpt>
    asset-sha256: none
---
# A masked autoencoder
"""


class Said(NamedTuple):
    """What a child printed: its JSON, its stderr, and the model's outputs."""

    json: dict[str, Any]
    stderr: str
    outputs: dict[str, NDArray[Any]]


def archive(target: Path, top: str) -> Path:
    """The repository's files, changed and new ones too, as a zip under one top folder, as GitHub gives it."""
    with zipfile.ZipFile(target, "w") as zipped:
        for path in repository_files():
            zipped.write(ROOT / path, f"{top}/{path}")
        for link in (ROOT / "src" / "polymae").iterdir():
            if link.is_symlink():  # Python's zipfile unpacks a link as a file that holds its target
                zipped.writestr(f"{top}/{link.relative_to(ROOT)}", str(link.readlink()))
    return target


def mirror(folder: Path, name: str, source: Path) -> None:
    """A folder as a git repository with the branch main, where git looks for someone/<name>."""
    target = folder / "someone" / f"{name}.git"
    shutil.copytree(source, target)
    who = ["-c", "user.name=someone", "-c", "user.email=someone@example.com", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q", "-b", "main"], ["add", "-Af"], [*who, "commit", "-qm", "all"]):
        subprocess.run(["git", "-C", str(target), *command], check=True, capture_output=True)


@cache
def folders() -> dict[str, str]:
    """The places that a child is told of, made once."""
    with zipfile.ZipFile(archive(FOLDER / "main.zip", UNPACKED)) as zipped:
        zipped.extractall(FOLDER)
    root, second, strangers = FOLDER / UNPACKED, FOLDER / "another version", FOLDER / "strangers"
    for folder in (second, strangers):
        folder.mkdir()
    for name in ("hubconf.py", "mindspore_hub_conf.py"):  # all that is read of a version that is not used
        shutil.copy(root / name, second)
    for name in STRANGERS:
        (strangers / f"{name}.py").write_text(
            "raise AssertionError(f'{__name__}: a stranger\\'s module was imported')\n"
        )
    for framework in ("torch", "oneflow"):  # what their hubs' caches call someone/polymae:main
        cached = FOLDER / framework / "hub" / "someone_polymae_main"
        cached.parent.mkdir(parents=True)
        cached.symlink_to(root)
    for name, source in (("polymae", root), ("second", second)):
        mirror(FOLDER / "mirrors", name, source)
    (FOLDER / "page.md").write_text(PAGE)
    publish(FOLDER / "published")
    official_checkpoint(FOLDER / "official.pth", CONFIG, WEIGHTS)
    assert not convert(["mindspore", "-c", str(FOLDER / "official.pth"), "-o", str(FOLDER / "small.ckpt")])
    np.savez(FOLDER / "inputs.npz", **INPUTS)
    places = {"root": root, "second": second, "strangers": strangers, "weights": "official.pth", "inputs": "inputs.npz"}
    return {name: str(FOLDER / place) for name, place in {**places, "page": "page.md"}.items()}


def environment() -> dict[str, str]:
    """The environment of a user whose hubs keep everything in our folder and reach no network."""
    # MindSpore's import, in another test, leaves a variable in the environment with which OneFlow cannot be imported.
    others = ("PROTOCOL_BUFFERS_", "PYTHON", "POLYMAE_", "GIT_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    return clean | {
        "TORCH_HOME": str(FOLDER / "torch"), "ONEFLOW_HOME": str(FOLDER / "oneflow"), "MGE_HOME": str(FOLDER / "megengine"),
        "POLYMAE_HOME": str(FOLDER / "polymae"), "POLYMAE_OFFLINE": "1", "GIT_CONFIG_GLOBAL": os.devnull,
        "POLYMAE_REGISTRY": str(FOLDER / "published" / "registry.json"),
        "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.file://{FOLDER}/mirrors/.insteadOf",
        "GIT_CONFIG_VALUE_0": "git@github.com:",
    }  # fmt: skip


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Python with these arguments, among the strangers' modules."""
    there = folders()["strangers"]
    command = [sys.executable, *arguments]
    return children.run(command, cwd=there, env=environment(), text=True)


@cache
def said(framework: str) -> Said:
    """What one framework's hub gave, from one process."""
    outputs = FOLDER / f"{framework}.npz"
    done = run([str(CHILD), framework, json.dumps(folders() | {"outputs": str(outputs)})])
    assert done.returncode == 0, done.stderr[-4000:]
    with np.load(outputs) as arrays:
        return Said(json.loads(done.stdout.splitlines()[-1]), done.stderr, dict(arrays))
