"""MegEngine's and OneFlow's own loaders run the pickle in a file: no file whose pickle calls anything of its own gets to them."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import children
import numpy as np
import pytest
from checkpoints import CONFIG, MODEL, WEIGHTS
from untested import require

from polymae.compare.record.inputs import random_inputs
from polymae.convert.checkpoint import open_checkpoint
from polymae.convert.formats.oneflow import PICKLE
from polymae.convert.targets import is_native
from polymae.convert.writing import write_checkpoint


def harmful(folder: Path, framework: str) -> Path:
    """The framework's own file of a model, with a call of stranger.note() in front, whose result is dropped."""
    path = folder / ("mae.pkl" if framework == "megengine" else "mae")
    write_checkpoint(framework, path, CONFIG, WEIGHTS)
    assert is_native(open_checkpoint(path), framework)
    pickled = path / PICKLE if framework == "oneflow" else path
    whole = pickled.read_bytes()
    assert whole[0] == 0x80
    called = b"cstranger\nnote\n)R0"
    pickled.write_bytes(whole[:2] + called + whole[2:])
    return path


def stranger(folder: Path) -> Path:
    """A module that is installed beside the framework. Gives the file that it leaves behind where it is called."""
    (folder / "stranger.py").write_text(f"def note():\n    open({str(folder / 'ran')!r}, 'w').close()\n")
    return folder / "ran"


@pytest.mark.parametrize("framework", ["megengine", "oneflow"])
def test_a_file_that_names_a_stranger_is_read_by_our_reader_alone(framework: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(harmful(tmp_path, framework))
    assert (checkpoint.unknown, checkpoint.extras) == (("stranger.note",), ())
    for name, array in checkpoint.weights(CONFIG).items():
        assert np.array_equal(array, WEIGHTS[name])
    assert not is_native(checkpoint, framework)


@pytest.mark.parametrize("framework", ["megengine", "oneflow"])
def test_recording_a_file_runs_nothing_of_it(framework: str, tmp_path: Path) -> None:
    require(framework)
    path, ran = harmful(tmp_path, framework), stranger(tmp_path)
    np.savez(tmp_path / "inputs.npz", **random_inputs(CONFIG))
    words = ("record", "--framework", framework, "-m", MODEL, "--weights", path, "--level", "weights")
    command = [
        sys.executable,
        "-m",
        "polymae",
        *words,
        "--inputs",
        tmp_path / "inputs.npz",
        "--out",
        tmp_path / "t.npz",
    ]
    # MindSpore's import, in another test, leaves a variable in the environment with which OneFlow cannot be imported.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PROTOCOL_BUFFERS_")}
    children.run(command, check=True, text=True, env=clean | {"PYTHONPATH": str(tmp_path)})
    assert (tmp_path / "t.npz").is_file()
    assert not ran.exists()


def test_pickle_itself_would_run_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, ran = harmful(tmp_path, "megengine"), stranger(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    pickle.loads(path.read_bytes())
    assert ran.exists()
