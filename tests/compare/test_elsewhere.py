"""Record anywhere, judge anywhere: other interpreters, and one that has NumPy and nothing else."""

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import children
import numpy as np
import pytest
from repository import ROOT
from runs import CONFIG, MODEL, Edited, inputs, oracle, plain, recorded, twins

from polymae.backends.initial import initial_weights
from polymae.cli import main
from polymae.compare import OF_ONE_RUN
from polymae.compare.offline import weights_of
from polymae.compare.options import Comparison, Run
from polymae.compare.record.child import record_in_process
from polymae.compare.run import compare
from polymae.compare.trace import Trace
from polymae.convert.writing import official_checkpoint
from polymae.files.errors import Problem
from polymae.files.version import __version__

PACKAGES = Path(np.__file__).parent.parent
BARE = """
import importlib.util, sys
sys.path.insert(0, sys.argv[1])
others = "scipy", "rich", "jinja2", "matplotlib", "blake3", "einops", "PIL", "torch", "oneflow"
assert not [name for name in others if importlib.util.find_spec(name)]
from polymae.cli import main
sys.exit(main(sys.argv[2:]))
"""


def linked(folder: Path, *names: str) -> Path:
    """A folder of packages: these of ours, and nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        for found in (PACKAGES / name, PACKAGES / f"{name}.py", PACKAGES / f"{name}.libs"):
            if found.exists():
                (folder / found.name).symlink_to(found)
    (folder / "polymae").symlink_to(ROOT / "src" / "polymae")
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where there is NumPy alone."""
    return linked(tmp_path_factory.mktemp("bare"), "numpy")


def there(bare: Path, *words: object) -> "subprocess.CompletedProcess[str]":
    """A command of polymae where there is NumPy alone."""
    command = [sys.executable, "-I", "-S", "-B", "-c", BARE, str(bare), *map(str, words)]
    return children.run(command, text=True)


def traces() -> Iterator[Path]:
    """The oracle, its twins, a right run and two wrong ones, and one that cannot be compared."""
    yield from (oracle(), *twins(), plain(), recorded("tanh", fault="tanh gelu"))
    yield Edited(plain(), dtype="bfloat16", framework="torch").save(plain().with_name("bf16.npz"))
    yield Edited(plain(), {"pred": None}, framework="oneflow").save(plain().with_name("hole.npz"))


def test_numpy_alone_judges_as_everything_does(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "--traces", *map(str, traces()), "--json"]
    capsys.readouterr()
    assert main(words) == 1
    here = json.loads(capsys.readouterr().out)
    done = there(bare, *words)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    there_too = json.loads(done.stdout)
    verdicts = {"not comparable", "coverage hole", "roundoff", "fault"}
    assert {row["verdict"] for row in here["frameworks"]} == verdicts
    for one, other in zip(here["frameworks"], there_too["frameworks"], strict=True):
        assert (one["framework"], one["verdict"]) == (other["framework"], other["verdict"])
        assert [(found["name"], found["error"], found["limit"]) for found in one["tensors"]] == [
            (found["name"], found["error"], found["limit"]) for found in other["tensors"]
        ]
        if other["tensors"]:
            assert any("was not computed: that needs scipy" in notice for notice in other["notices"])


def test_what_numpy_alone_cannot_do_is_told(bare: Path, tmp_path: Path) -> None:
    paths = [oracle(), *twins(), plain()]
    done = there(bare, "compare", "--traces", *paths, "--out", tmp_path / "out", "--junit", tmp_path / "j.xml")
    assert done.returncode == 0, done.stderr
    assert "No report.html" in done.stderr
    assert "roundoff" in done.stdout
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["j.xml", "out", "report.json"]
    done = there(bare, "record", "--framework", "torch", "-m", MODEL, "--inputs", inputs(), "--out", tmp_path / "t.npz")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr


def test_another_environment_records(tmp_path: Path) -> None:
    place = tmp_path / "venv"
    venv.create(place, with_pip=False)
    python = str(place / "bin" / "python")
    assert (
        "has no polymae; install it there"
        in record_in_process(Run("numpy", tmp_path / "t.npz", inputs()), python).reason
    )
    (packages,) = place.glob("lib/python*/site-packages")
    linked(packages, "numpy", "scipy", "einops", "blake3", "PIL", "pillow", "threadpoolctl")
    # Another version of PolyMAE, so that the trace shows where it was recorded.
    (packages / "polymae").unlink()
    shutil.copytree(ROOT / "src" / "polymae", packages / "polymae", ignore=shutil.ignore_patterns("__pycache__"))
    version = packages / "polymae" / "files" / "version.py"
    version.write_text(version.read_text(encoding="utf-8").replace(__version__, "another"), encoding="utf-8")
    run = Run("numpy", tmp_path / "t.npz", inputs(), model=MODEL)
    outcome = record_in_process(run, python)
    assert outcome.trace, outcome.reason
    assert Trace(run.out).manifest["environment"]["polymae"] == "another"  # so it was not recorded here
    comparison = Comparison(("numpy",), model=MODEL, levels=("forward", "loss"), pythons={"numpy": python})
    report = compare(comparison)
    assert report.exit_status == 0
    assert report.judgements[0].environment["polymae"] == "another"
    done = children.run(
        [python, "-m", "polymae", "record", "--framework", "torch", "-m", MODEL, "--inputs", str(inputs()), "--out", "t.npz"],
        cwd=tmp_path, text=True, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 2
    assert "torch is not installed in this environment" in done.stderr


def test_the_weights_of_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = initial_weights(CONFIG)
    found = weights_of(Trace(oracle()))
    assert found is not None
    assert all(np.array_equal(found[name], weights[name]) for name in weights)
    own, other = tmp_path / "own.pth", tmp_path / "other.pth"
    official_checkpoint(own, CONFIG, initial_weights(CONFIG, 5))
    official_checkpoint(other, CONFIG, initial_weights(CONFIG, 6))
    trace = Trace(recorded("own weights", weights=own, model=None, levels=OF_ONE_RUN))
    assert weights_of(trace) is None
    found = weights_of(trace, own)
    assert found is not None
    assert np.array_equal(found["cls_token"], initial_weights(CONFIG, 5)["cls_token"])
    with pytest.raises(Problem, match="other weights than those"):
        weights_of(trace, other)
