"""The metadata, the wheel and the source distribution: what pip gets, and what it is told."""

from __future__ import annotations

import re
import tarfile
import zipfile
from pathlib import Path

import pytest
import pythons
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from repository import ROOT, repository_files

from polymae.backends import FRAMEWORKS
from polymae.backends.installing import JOINT, NEWEST_PYTHON, has_wheels, install_line, requirements

PINS = ROOT / "requirements"


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pythons.build("sdist", pythons.copied(tmp_path_factory.mktemp("packages") / "source"))


def test_the_source_distribution_holds_the_whole_repository(sdist: Path) -> None:
    with tarfile.open(sdist) as packed:
        names = {Path(*Path(name).parts[1:]) for name in packed.getnames()}
    assert set(repository_files()) - names == set()
    ours = {path.parts[0] for path in repository_files()}
    assert {path.parts[0] for path in names if path.parts} - ours == {"PKG-INFO"}
    # Every file once: those of the package's folders are not there a second time under src/.
    assert {path for path in names if path.parts[:1] == ("src",)} == {
        path for path in repository_files() if path.parts[0] == "src"
    }


def test_the_wheel_holds_the_whole_package_and_nothing_else(sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as packed:
        packed.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    with zipfile.ZipFile(pythons.build("wheel", folder)) as packed:
        names = packed.namelist()
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert {"backends", "convert", "compare", "hub", "cli"} <= packages
    package = {path.name for path in (ROOT / "src" / "polymae").iterdir() if path.is_file()}
    assert {"__init__.py", "__main__.py", "py.typed"} <= package
    for name in names:
        top, second = Path(name).parts[:2]
        assert top.endswith(".dist-info") or (top == "polymae" and second in packages | package), name
    # A new folder of ours that pyproject.toml does not name, or that has no link, would be missing.
    assert {path.name for path in (ROOT / "src" / "polymae").iterdir() if path.is_symlink()} == packages
    assert {f"polymae/{name}" for name in package} <= set(names)
    ours = {path for path in repository_files() if path.parts[0] in packages}
    files = {str("polymae" / path) for path in ours if path.suffix in (".py", ".html", ".css", ".json", ".jpg")}
    assert files - set(names) == set()
    assert any(name.endswith("/LICENSE") for name in names)


def pins(name: str) -> dict[str, Requirement]:
    lines = [line for line in (PINS / name).read_text().splitlines() if line and line[0] not in "#-"]
    found = [Requirement(line) for line in lines]
    return {canonicalize_name(one.name): one for one in found if one.marker is None or one.marker.evaluate()}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_pins_lie_within_the_ranges(framework: str) -> None:
    pinned = pins("core.txt") | (pins(f"{framework}.txt") if framework != "numpy" else {})
    wanted = requirements(framework, JOINT)
    assert len(wanted) > 10
    for one in wanted:
        (version,) = {pin.version for pin in pinned[canonicalize_name(one.name)].specifier}
        assert one.specifier.contains(version), one


@pytest.mark.parametrize("name", ["newest.txt", "lowest.txt"])
def test_the_oldest_and_the_newest_versions_are_those_of_the_metadata(name: str) -> None:
    pinned = pins(name)
    for one in requirements("numpy"):
        (version,) = {pin.version for pin in pinned[canonicalize_name(one.name)].specifier}
        assert one.specifier.contains(version), one
        if name == "lowest.txt":
            assert [Version(bound.version) for bound in one.specifier] == [Version(version)], one


@pytest.mark.parametrize("framework", [name for name in FRAMEWORKS if name != "numpy"])
def test_pip_and_the_command_line_agree_where_a_framework_has_wheels(framework: str) -> None:
    for minor in range(10, 16):
        asked = any(one.name == framework for one in requirements(framework, (3, minor)))
        assert asked == has_wheels(framework, (3, minor)), minor


def test_no_requirement_keeps_a_newer_python_out() -> None:
    said = (ROOT / "pyproject.toml").read_text()
    assert re.search(r'^requires-python = ">=3.10"$', said, re.MULTILINE)
    assert not any(one.name in NEWEST_PYTHON for one in requirements("numpy", (3, 14)))


def test_what_to_type_fits_the_python_that_asks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = "polymae.backends.installing"
    assert install_line("torch").startswith("pip install -r ")
    monkeypatch.setattr(f"{module}.sys.version_info", (3, 13, 0))
    assert install_line("torch") == f"pip install -e '{ROOT}[torch]'"
    assert install_line("core") == f"pip install -e {ROOT}"
    monkeypatch.setattr(f"{module}.ROOT", tmp_path)
    assert install_line("torch") == "pip install 'polymae[torch]'"
    assert install_line("core") == "pip install polymae"
