"""What tools see of the package: editors, documentation generators, type checkers, coverage, import linters."""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

import children
import jedi
import pytest
from checkpoints import MODEL
from hub_folders import archive
from repository import ROOT, repository_files

import polymae

LINT = Path(sys.executable).with_name("lint-imports")


def definitions(code: str, line: int, column: int, path: Path) -> list[Path]:
    """Where an editor jumps to from a place of a text."""
    project = jedi.Project(ROOT if path.is_relative_to(ROOT) else path.parent)
    found = jedi.Script(code, path=path, project=project).goto(line, column, follow_imports=True)
    return [one.module_path.resolve() for one in found if one.module_path]


@pytest.mark.parametrize("folder", [ROOT / "tests", None], ids=["a test", "a user's script"])
@pytest.mark.parametrize(
    ("code", "target"),
    [
        ("from polymae.hub import load\nload", "hub/loading.py"),
        ("from polymae.convert.checkpoint import open_checkpoint\nopen_checkpoint", "convert/checkpoint.py"),
        ("from polymae import load\nload", "hub/loading.py"),
        ("import polymae\npolymae.compare.assert_parity", "compare/api/library.py"),
    ],
)
def test_an_editor_finds_the_definition(code: str, target: str, folder: Path | None, tmp_path: Path) -> None:
    path = (folder or tmp_path) / "script.py"
    line = code.splitlines()[-1]
    assert definitions(code, 2, len(line) - 1, path) == [ROOT / target]


# In a process of its own: what is loaded here is not forgotten.
GRIFFE = """
import sys
import griffe
package = griffe.load("polymae", search_paths=[sys.argv[1]], allow_inspection=False)
def walk(one):
    for member in one.members.values():
        if not member.is_alias and member.is_module:
            yield member.path
            yield from walk(member)
print(*walk(package), sep="\\n")
"""


def test_the_documentation_of_every_module_can_be_generated() -> None:
    names = set(children.run([sys.executable, "-c", GRIFFE, ROOT / "src"], check=True, text=True).stdout.split())
    packages = {link.name for link in (ROOT / "src" / "polymae").iterdir() if link.is_symlink()}
    modules = {
        ".".join(["polymae", *path.with_suffix("").parts]).removesuffix(".__init__")
        for path in repository_files("*.py")
        if path.parts[0] in packages
    }
    assert modules - names == set()
    assert len(modules) > 200


def test_pyright_finds_the_whole_package(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(
        "import polymae\nfrom polymae.hub import load\nfrom polymae.convert.checkpoint import open_checkpoint\n"
        "reveal_type(polymae.__version__)\nreveal_type(open_checkpoint)\nload(3)\n"
    )
    command = [Path(sys.executable).with_name("pyright"), "--outputjson", "--pythonpath", sys.executable, "user.py"]
    said = json.loads(children.run(command, cwd=tmp_path, text=True).stdout)["generalDiagnostics"]
    texts = [one["message"] for one in said]
    assert any('"polymae.__version__" is "str"' in text for text in texts), texts
    assert any("-> Checkpoint" in text for text in texts), texts
    errors = [one for one in said if one["severity"] == "error"]
    assert len(errors) == 1, texts
    assert "cannot be assigned to parameter" in errors[0]["message"]


CHECKED = """
import sys
from mypy.main import process_options
sources, options = process_options(["--config-file", sys.argv[1]])
print(*(source.path for source in sources), sep="\\n")
"""


def type_checked(config: Path) -> set[Path]:
    """The files that mypy checks with a configuration, relative to the repository, links followed."""
    printed = children.run([sys.executable, "-c", CHECKED, config], check=True, text=True, cwd=ROOT).stdout
    return {(ROOT / line).resolve().relative_to(ROOT) for line in printed.splitlines()}


def test_mypy_checks_the_product_and_the_benchmarks(tmp_path: Path) -> None:
    folders = [path.name for path in (ROOT / "src" / "polymae").iterdir() if path.is_symlink()]
    code = set(repository_files(*(f"{folder}/*.py" for folder in ("benchmarks", *folders))))
    assert code - type_checked(ROOT / "pyproject.toml") == set()
    narrow = tmp_path / "mypy.ini"
    narrow.write_text("[mypy]\nfiles = src/polymae\n")
    assert {path.parts[0] for path in code - type_checked(narrow)} == {"benchmarks"}


def test_mypy_sees_a_broken_call_in_a_benchmark(tmp_path: Path) -> None:
    source = (ROOT / "benchmarks" / "false_alarms.py").read_text()
    old = 'weights=place / "weights.pth"'
    assert old in source
    broken = tmp_path / "false_alarms.py"
    broken.write_text(source.replace(old, 'place / "weights.pth"'))
    command = [Path(sys.executable).with_name("mypy"), broken]  # with the cache of `make lint`: seconds
    done = children.run(command, cwd=ROOT, text=True, env=os.environ | {"MYPYPATH": "benchmarks"})
    assert done.returncode == 1, done.stdout
    assert 'Too many positional arguments for "Run"' in done.stdout
    assert "Found 1 error in 1 file" in done.stdout


def test_an_upward_import_fails_the_contract(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src" / "polymae", tmp_path / "src" / "polymae")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)

    def lint() -> tuple[int, str]:
        command = [LINT, "--no-cache"]
        done = children.run(command, cwd=tmp_path, text=True, env=os.environ | {"PYTHONPATH": str(tmp_path / "src")})
        return done.returncode, done.stdout

    assert lint()[0] == 0
    spec = tmp_path / "src" / "polymae" / "backends" / "spec.py"
    spec.write_text(spec.read_text() + "\n\ndef planted():\n    from ..convert import checkpoint\n")
    status, said = lint()
    assert status == 1
    assert "polymae.backends is not allowed to import polymae.convert" in said


def test_the_package_is_lazy_and_whole() -> None:
    code = "import sys, polymae; print(*(n for n in sys.modules if n.startswith('polymae.')), polymae.__version__)"
    loaded = children.run([sys.executable, "-c", code], check=True, text=True).stdout.split()
    assert loaded == ["polymae.files", "polymae.files.lazy", polymae.__version__]
    assert {"load", "convert", "compare", "hub", "Problem"} <= set(dir(polymae))
    assert polymae.load is polymae.hub.load
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        polymae.lode  # type: ignore[attr-defined]  # noqa: B018


def door(folder: Path, script: str, *words: str | Path, cwd: Path) -> str:
    """A script of a folder that is not installed, with nothing but the dependencies."""
    # -S leaves out the installation in editable form; what is needed beside is given by its folder.
    packages = str(Path(json.__file__).parents[1] / "site-packages"), str(Path(jedi.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(packages)}
    done = children.run([sys.executable, "-S", folder / script, *words], cwd=cwd, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository from a zip, which has lost its links."""
    folder = tmp_path_factory.mktemp("zip")
    with zipfile.ZipFile(archive(folder / "main.zip", "polymae-main")) as zipped:
        zipped.extractall(folder)
    assert (folder / "polymae-main" / "src" / "polymae" / "backends").is_file()
    return folder / "polymae-main"


@pytest.mark.parametrize("zipped", [True, False], ids=["from a zip", "from a clone"])
def test_the_scripts_run_without_an_installation(zipped: bool, unpacked: Path, official: Path, tmp_path: Path) -> None:
    folder = unpacked if zipped else ROOT
    script = "convert/convert_weights.py"
    said = door(folder, script, "-m", MODEL, "-c", official, cwd=tmp_path)
    assert (tmp_path / "pretrained" / f"{MODEL}.pkl").is_file(), said
    door(folder, script, "--torch_path", official, "--mindspore_path", "mae.ckpt", cwd=tmp_path)
    assert (tmp_path / "mae.ckpt").is_file()
    door(folder, script, "numpy", "-c", official, "-o", "mae.npz", cwd=tmp_path)
    assert (tmp_path / "mae.npz").is_file()
    words = ("-m", MODEL, "--frameworks", "numpy", "--level", "forward", "--reference", "none")
    assert "roundoff" in door(folder, "compare/compare.py", *words, cwd=tmp_path)
    assert "usage: convert_weights" in door(folder, script, "--help", cwd=tmp_path)
    # The program that was run is the folder's.
    code = f"import sys; sys.path.insert(0, {str(folder / 'src')!r}); import polymae.cli; print(polymae.cli.__file__)"
    assert children.run([sys.executable, "-S", "-c", code], check=True, text=True).stdout.startswith(str(folder))
