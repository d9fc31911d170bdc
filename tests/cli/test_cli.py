"""The command line as a person meets it: help, typing errors, doctor."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from polymae.backends.presets import ALIASES, NAMED
from polymae.cli import COMMANDS, convert_weights, main
from polymae.cli.examples import EXAMPLES

HEAVY = {"torch", "megengine", "mindspore", "oneflow", "numpy", "scipy", "rich", "matplotlib", "jinja2"}


def run_cli(*arguments, module="polymae", options=(), path=None, cwd=None):
    """Run a command. path: a folder whose modules come before the installed ones."""
    env = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    command = [sys.executable, *options, "-m", module, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd, check=False)


@pytest.mark.parametrize("module", ["polymae", "polymae.cli.convert_weights"])
def test_help_imports_nothing_heavy(module):
    # How fast help comes is decided by what it imports; a timing would depend on the machine.
    done = run_cli("--help", module=module, options=["-X", "importtime"])
    assert done.returncode == 0
    assert "usage:" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "polymae.cli" in imported
    assert not HEAVY & imported


def test_help_names_every_subcommand():
    said = run_cli("--help").stdout
    for command in ("inspect", "record", "compare", "models", "doctor"):
        assert command in said


def test_models_lists_every_preset():
    listed = json.loads(run_cli("models", "--json").stdout)
    assert [row["name"] for row in listed] == list(NAMED)
    assert {alias for row in listed for alias in row["aliases"]} == set(ALIASES)
    base = next(row for row in listed if row["name"] == "mae_vit_base_patch16")
    assert base["values"] == 111_907_840  # what the official state dict of this model holds
    table = run_cli("models").stdout
    assert all(name in table for name in NAMED)


@pytest.mark.parametrize(
    ("arguments", "near"),
    [(["modles"], "'models'"), (["doctor", "--framework", "torhc"], "'torch'"), ([], "COMMAND")],
)
def test_a_typing_error_gets_the_nearest_name_and_status_2(arguments, near):
    done = run_cli(*arguments)
    assert done.returncode == 2
    assert near in done.stderr
    assert "Traceback" not in done.stderr


def doctor(framework, path=None, *more):
    done = run_cli("doctor", "--json", "--framework", framework, *more, path=path)
    (found,) = json.loads(done.stdout)["frameworks"]
    return done.returncode, found


def test_doctor_computes_with_every_framework(framework):
    status, found = doctor(framework)
    assert (status, found["state"], found["problem"]) == (0, "works", "")
    assert found["version"]
    assert "cpu" in found["devices"]


def hide(folder, framework):
    """A folder for PYTHONPATH that makes a framework look as if it were not installed."""
    folder.joinpath("sitecustomize.py").write_text(
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *rest: None if name == {framework!r} else find(name, *rest)\n"
    )
    return folder


def test_doctor_says_how_to_install_what_is_missing(tmp_path):
    status, found = doctor("oneflow", hide(tmp_path, "oneflow"))
    assert (status, found["state"]) == (1, "missing")
    assert "pip install" in found["fix"]
    assert "oneflow==" in found["fix"]


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("raise ImportError('libcublas.so.11: no such file')", "libcublas.so.11: no such file"),
        ("raise TypeError('a sum\\nof two lines')", "TypeError: of two lines"),
        ("import os; os.kill(os.getpid(), 11)", "signal 11"),
        ("import os; os._exit(3)", "status 3"),
        ("import time; time.sleep(100_000)", "no result within 2 s (a busy machine may need a larger --time-limit)"),
    ],
    ids=["import error", "exception", "crash", "exit", "hang"],
)
def test_doctor_survives_a_broken_framework_and_quotes_it(tmp_path, code, problem):
    tmp_path.joinpath("torch.py").write_text(code)
    status, found = doctor("torch", tmp_path, *(("--time-limit", "2") if "sleep" in code else ()))
    assert (status, found["state"]) == (1, "installed but broken")
    assert problem in found["problem"]
    assert "torch>=" in found["fix"]


def test_doctor_table_shows_problem_and_remedy(tmp_path):
    done = run_cli("doctor", "--framework", "oneflow", "--framework", "numpy", path=hide(tmp_path, "oneflow"))
    assert done.returncode == 1
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert "works" in rows["numpy"]
    assert "missing" in rows["oneflow"]
    assert "To mend it:" in done.stdout


def test_a_missing_framework_is_one_message_with_the_command_to_type(tmp_path):
    code = "from polymae.backends.runtime import load_backend; load_backend('megengine')"
    env = os.environ | {"PYTHONPATH": str(hide(tmp_path, "megengine"))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 1
    assert "megengine is not installed" in done.stderr
    assert "requirements/megengine.txt" in done.stderr


@pytest.mark.parametrize("prog", EXAMPLES)
def test_the_examples_in_every_help_are_understood(
    prog: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(line: str) -> int:
        program, *words = line.split()
        for name in (*COMMANDS, "convert_weights"):
            monkeypatch.setattr(f"polymae.cli.{name}.run", lambda args: 0)
        return {"polymae": main, "convert_weights": convert_weights.main}[program](words)

    with pytest.raises(SystemExit, match="0"):
        run(f"{prog} --help")
    shown = capsys.readouterr().out
    for line in EXAMPLES[prog]:
        assert f"  {line}\n" in shown
        assert run(line) == 0


def test_every_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    asked = [["polymae", name] for name in COMMANDS] + [["convert_weights", name] for name in convert_weights.TARGETS]
    for program, name in asked:
        with pytest.raises(SystemExit, match="0"):
            (main if program == "polymae" else convert_weights.main)([name, "--help"])
        assert f"examples:\n  {program} {name}" in capsys.readouterr().out


def test_who_types_polymae_convert_is_told_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["convert", "-c", "mae.pth"])
    assert "That is a command of its own: convert_weights FRAMEWORK -c FILE" in capsys.readouterr().err
