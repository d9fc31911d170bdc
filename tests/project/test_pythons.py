"""PolyMAE on other Pythons, from its wheel: the oldest versions of what it needs, and the newest.

Every file of tests that needs NumPy alone is run with the oldest versions, and with the newest under one of the other Pythons;
`make test-long` runs every file under each.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import pythons
from checkpoints import CONFIG, MODEL, WEIGHTS
from drawn import count
from repository import ROOT
from runs import inputs, oracle, plain, recorded, twins

from polymae.backends.installing import spelled
from polymae.backends.runtime import load_backend
from polymae.compare.trace import Trace
from polymae.convert.checkpoint import content_hash
from polymae.convert.writing import official_checkpoint

OLDEST = "3.10, oldest"
FOUND = {OLDEST: "", **{spelled(version): path for version, path in pythons.others().items()}}
LOADED = """
import sys
import numpy as np
from polymae.hub import load
model = load(sys.argv[1], framework="numpy", weights=sys.argv[2])
inputs = np.load(sys.argv[3])
loss, pred, mask = model(inputs["imgs"], inputs["noise"])
np.savez(sys.argv[4], loss=loss, pred=pred, mask=mask)
"""
HUBCONF = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("hubconf", sys.argv[1])
hubconf = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hubconf)
print(type(getattr(hubconf, sys.argv[2])(framework="numpy")).__module__)
"""

NUMPY = "import json, numpy; print(json.dumps(numpy.__version__))"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives an environment's Python by its name in FOUND; made when it is first asked for."""
    folder = tmp_path_factory.mktemp("pythons")

    @cache
    def wheel() -> Path:
        return pythons.build("wheel", pythons.copied(folder / "source"))

    @cache
    def made(name: str) -> Path:
        path = FOUND[name] or pythons.base()
        return pythons.environment(folder / name.replace(", ", "-"), path, wheel(), name == OLDEST)

    return made


def files(name: str) -> list[str]:
    """The files of tests that one of FOUND runs: all of them with the oldest versions, else its share."""
    newer = [other for other in FOUND if other != OLDEST]
    whole = name == OLDEST or count(1) > 1
    return pythons.NUMPY_ALONE if whole else pythons.NUMPY_ALONE[newer.index(name) :: len(newer)]


def test_every_file_is_run_with_the_oldest_and_with_the_newest() -> None:
    assert files(OLDEST) == pythons.NUMPY_ALONE
    newer = [file for name in FOUND if name != OLDEST for file in files(name)]
    assert set(newer) == set(pythons.NUMPY_ALONE) or FOUND.keys() == {OLDEST}
    assert len(newer) == (len(FOUND) - 1 if count(1) > 1 else bool(newer)) * len(pythons.NUMPY_ALONE)


@pytest.mark.drawn
@pytest.mark.parametrize("name", FOUND)
def test_what_needs_numpy_alone(python: Callable[[str], Path], name: str) -> None:
    options = ("-q", "-p", "no:cacheprovider", "-W", "ignore")
    done = pythons.run(python(name), "-m", "pytest", *options, *files(name), cwd=ROOT, POLYMAE_FRAMEWORKS="numpy")
    assert done.returncode == 0, done.stdout[-5000:]


@pytest.mark.parametrize("name", FOUND)
def test_the_wheel_converts_compares_and_loads(python: Callable[[str], Path], name: str, tmp_path: Path) -> None:
    strict = () if name == OLDEST else ("-W", "error")  # the oldest packages warn of themselves

    def polymae(*words: str | Path, status: int = 0) -> str:
        done = pythons.run(python(name), *strict, "-m", *words, cwd=tmp_path)
        assert (done.returncode, "Traceback" in done.stderr) == (status, False), done.stderr
        return str(done.stdout)

    official_checkpoint(tmp_path / "official.pth", CONFIG, WEIGHTS)
    polymae("polymae.cli.convert_weights", "megengine", "-c", "official.pth", "-o", "mae.pkl")
    assert json.loads(polymae("polymae", "inspect", "mae.pkl", "--json"))["hash"] == content_hash(WEIGHTS)
    polymae("polymae", "diff", "official.pth", "mae.pkl")
    faulty = recorded("tanh", fault="tanh gelu")
    for candidate, status in ((plain(), 0), (faulty, 1)):
        words = ("compare", "--traces", oracle(), *twins(), candidate, "--out", "reports")
        polymae("polymae", *words, status=status)
    assert (tmp_path / "reports" / "report.html").stat().st_size > 10_000
    done = pythons.run(python(name), *strict, "-c", LOADED, MODEL, "mae.pkl", inputs(), "out.npz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    numpy = load_backend("numpy")
    with np.load(inputs()) as given, np.load(tmp_path / "out.npz") as out:
        here = numpy.build(CONFIG, WEIGHTS)(given["imgs"], given["noise"])
        for mine, theirs in zip(here, (out["loss"], out["pred"], out["mask"]), strict=True):
            assert np.allclose(mine, theirs, atol=1e-5)


@pytest.mark.parametrize("name", FOUND)
def test_a_hub_loads_the_repository(python: Callable[[str], Path], name: str, tmp_path: Path) -> None:
    done = pythons.run(python(name), "-I", "-c", HUBCONF, ROOT / "hubconf.py", "mae_vit_tiny_patch16", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "polymae.backends.numpy.model"


def test_a_framework_runs_in_an_environment_of_its_own(python: Callable[[str], Path], tmp_path: Path) -> None:
    caller = python(list(FOUND)[-1])  # OneFlow has no wheels for it, or is just not there
    uv = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def polymae(*words: str | Path, status: int = 0) -> str:
        done = pythons.run(caller, "-m", "polymae", *words, cwd=tmp_path, **uv)
        assert done.returncode == status, done.stderr
        return str(done.stdout + done.stderr)

    assert "polymae env add oneflow" in polymae("doctor", "--framework", "oneflow", status=1) or len(FOUND) == 1
    added = polymae("env", "add", "oneflow")
    there = caller.parent.parent / "polymae-environments" / "oneflow" / "bin" / "python"
    assert f"oneflow computes in {there}" in added
    doctor = json.loads(polymae("doctor", "--framework", "oneflow", "--json"))["frameworks"]
    assert [(one["state"], one["python"]) for one in doctor] == [("works", str(there))]
    words = ("-m", MODEL, "--frameworks", "numpy,oneflow", "--reference", "numpy", "--level", "forward,loss", "--json")
    report = json.loads(pythons.run(caller, "-m", "polymae", "compare", *words, cwd=tmp_path).stdout)
    assert [row["verdict"] for row in report["frameworks"]] == ["roundoff", "roundoff"]
    numpy, oneflow = (row["environment"] for row in report["frameworks"])
    assert oneflow["python"].startswith("3.10.")
    assert numpy["numpy"] == json.loads(pythons.run(caller, "-c", NUMPY, cwd=tmp_path).stdout)
    polymae("record", "--framework", "oneflow", "-m", MODEL, "--inputs", inputs(), "--out", "trace.npz")
    assert Trace(tmp_path / "trace.npz").manifest["environment"]["python"] == oneflow["python"]
