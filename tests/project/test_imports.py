"""The repository's own rules: what imports what, what no file may hold."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from repository import ROOT, repository_files

from polymae.cli import COMMANDS

FRAMEWORK_FOLDERS = {"torch", "megengine", "mindspore", "oneflow"}


def modules() -> list[str]:
    """Every module of ours outside the frameworks' own folders."""
    names = []
    for path in repository_files("*.py"):
        in_package = (ROOT / path.parts[0] / "__init__.py").exists()
        of_framework = path.parts[0] == "backends" and path.parts[1] in FRAMEWORK_FOLDERS
        if in_package and not of_framework and path.name != "__main__.py":
            names.append(".".join(["polymae", *path.with_suffix("").parts]).removesuffix(".__init__"))
    return names


def test_our_modules_import_no_framework():
    names = modules()
    assert {"polymae.cli", "polymae.backends.spec", "polymae.backends.numpy.model"} <= set(names)
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        f"    got = {FRAMEWORK_FOLDERS!r} & set(sys.modules)\n"
        "    if got: sys.exit(f'importing {name} imports {sorted(got)}')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *names], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# A help text is there at once (docs/benchmarks/startup.md) because nothing is imported for it but Python's own modules.
HELP = """
import contextlib, io, sys
from importlib import import_module
before, (module, *arguments) = set(sys.modules), sys.argv[1:]
with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
    import_module(module).main(arguments)
assert "usage:" in said.getvalue(), said.getvalue()
names = {name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names - {"polymae"}
print(*sorted(name for name in names if not name.startswith("_")))
"""
HELPS = [["polymae.cli"], ["polymae.cli.convert_weights"], ["polymae.cli.convert_weights", "megengine"]]


@pytest.mark.parametrize("words", [*HELPS, *(["polymae.cli", command] for command in COMMANDS)], ids=" ".join)
def test_help_imports_nothing_but_pythons_own_modules(words):
    done = subprocess.run([sys.executable, "-c", HELP, *words, "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def test_an_import_for_the_help_would_be_seen(tmp_path):
    (tmp_path / "planted.py").write_text("def main(words):\n    import json, numpy\n    print('usage:')\n")
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", HELP, "planted"], capture_output=True, text=True, env=env, check=True)
    assert set(done.stdout.split()) >= {"numpy", "planted"}


def test_no_file_names_this_machine_or_a_registry():
    # Put together from parts, so that this file does not hold what it forbids.
    folders = rb"(?<![\w./~-])/(?:" + b"|".join([b"work", b"root"]) + rb")(?:/|\b(?![\w-]))"
    hosts = rb"\b(?:" + b"|".join([b"pypi" + rb"\." + b"org", b"files." + b"pythonhosted", b"test" + b"pypi"]) + rb")\b"
    forbidden = re.compile(folders + b"|" + hosts)
    assert forbidden.search(b"see /" + b"work/main")
    assert forbidden.search(b"https://pypi" + b".org/simple")
    assert not forbidden.search(b"network/work, ../work/x, polymae/work")
    found = []
    for path in repository_files():
        content = (ROOT / path).read_bytes()
        if b"\0" in content:  # a picture or another binary file
            continue
        found += [f"{path}: {match.group().decode()}" for match in forbidden.finditer(content)]
    assert not found, "\n".join(found)
