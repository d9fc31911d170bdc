"""What continuous integration runs, with stand-ins for the system's programs; what is said of tests that were not run."""

import os
import shutil
import subprocess
import sys

import pytest
from order import LONGEST
from repository import ROOT

NEEDED = ("bash", "dirname", "paste", "env", "ln")
# Each notes how it was called. apt-get installs what it is told to, unless it fails or does nothing.
APT = """#!/bin/bash
echo "apt-get $*" >>"$CALLS"
[[ $1 == "${FAILS:-}" ]] && exit 100
[[ $1 == install && -z ${LAZY:-} ]] || exit 0
for name in "$@"; do [[ $name == -* || $name == install ]] || ln -s /bin/true "$TOOLS/$name"; done
"""
MAKE = '#!/bin/bash\necho "make $* CI=$CI" >>"$CALLS"\n'


def ci(tmp_path, here=("git",), without=(), **variables):
    """Run .ci/run where only some programs are. Its status, what it said on stderr, and the calls that it made."""
    tools, calls = tmp_path / "tools", tmp_path / "calls"
    tools.mkdir()
    calls.touch()
    for name in NEEDED:
        (tools / name).symlink_to(shutil.which(name))
    for name in here:
        (tools / name).symlink_to("/bin/true")
    user = f"#!/bin/bash\necho {1000 if 'root' in without else 0}\n"
    for name, script in {"apt-get": APT, "make": MAKE, "id": user}.items():
        if name not in without:
            (tools / name).write_text(script)
            (tools / name).chmod(0o755)
    env = {"PATH": str(tools), "TOOLS": str(tools), "CALLS": str(calls), **variables}
    done = subprocess.run([shutil.which("bash"), ROOT / ".ci" / "run"], env=env, capture_output=True, text=True)
    return done.returncode, done.stderr, calls.read_text().splitlines()


UPDATE, TEST = "apt-get update", f"make -C {ROOT} test CI=true"


def test_it_runs_make_test_where_everything_is_there(tmp_path):
    for chrome, compiler in (("chromium", "g++"), ("google-chrome", "clang++")):
        (tmp_path / chrome).mkdir()
        assert ci(tmp_path / chrome, here=("git", chrome, compiler)) == (0, "", [TEST])


def test_it_installs_what_the_tests_need(tmp_path):
    install = "apt-get install --yes --no-install-recommends"
    (tmp_path / "two").mkdir()
    assert ci(tmp_path, here=("git", "g++")) == (0, "", [UPDATE, f"{install} chromium", TEST])
    assert ci(tmp_path / "two") == (0, "", [UPDATE, f"{install} chromium g++", TEST])


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"FAILS": "update"}, "apt-get update failed (see above), and the tests need chromium g++."),
        ({"FAILS": "install"}, "apt-get install chromium g++ failed (see above)."),
        ({"LAZY": "1"}, "there is still no chromium g++ on PATH"),
        ({"without": ["root"]}, "only root can install them: sudo apt-get install chromium g++"),
        ({"without": ["apt-get"]}, "there is no apt-get here; install them"),
    ],
    ids=["update", "install", "nothing installed", "not root", "no apt-get"],
)
def test_it_fails_loudly_where_it_cannot(how, words, tmp_path):
    status, said, calls = ci(tmp_path, **how)
    assert status != 0
    assert words in said
    assert not any(call.startswith("make") for call in calls)


SOME = """
import pytest
from untested import require, skip, skipped_where

def test_one(): pass
@pytest.mark.parametrize("i", range(2))
@skipped_where(True, "no cat is here", "get one")
def test_two(i): pass
def test_three(): skip("no dog is here", "get another")
"""


def run(folder, text, *words, **variables):
    """Run pytest on a file, as `make test` does. Its status and what it printed."""
    for path in (ROOT / "tests").glob("*.py"):
        shutil.copy(path, folder)
    (folder / "test_inner.py").write_text(text)
    env = {name: value for name, value in os.environ.items() if name not in ("CI", "POLYMAE_FRAMEWORKS")} | variables
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, folder, *words]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    return done.returncode, done.stdout.splitlines()


LINES = ["2 tests not run: no cat is here: get one", "1 test not run: no dog is here: get another"]
FAILURE = "CI is set, and where it is, what is not run is a failure."


def test_what_was_not_run_is_said_last_and_fails_where_ci_is_set(tmp_path):
    status, said = run(tmp_path, SOME)
    assert (status, said[-2:]) == (0, LINES)
    status, said = run(tmp_path, SOME, "-n1", "--dist", "loadfile", CI="true")  # as `make test` does
    assert (status, said[-3:]) == (1, [*LINES, FAILURE])


def test_where_everything_was_run_nothing_is_said(tmp_path):
    status, said = run(tmp_path, "def test_one(): pass", CI="true")
    assert status == 0
    assert "not run" not in "".join(said)


def test_a_failure_stays_one(tmp_path):
    status, said = run(tmp_path, SOME + "def test_four(): assert 0")
    assert (status, said[-2:]) == (1, LINES)


def test_frameworks_that_are_not_under_test_are_told(tmp_path):
    text = "from untested import require\ndef test_one(): require('torch')"
    status, said = run(tmp_path, text, POLYMAE_FRAMEWORKS="numpy, oneflow")
    assert status == 0
    assert said[-2].startswith("1 test not run: POLYMAE_FRAMEWORKS does not list torch: ")
    assert said[-1].startswith("nothing run with torch, megengine, mindspore: POLYMAE_FRAMEWORKS does not list them: ")


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.name)
def test_every_skip_says_how_to_have_it_run(path):
    if path.name != "untested.py":
        text = path.read_text(encoding="utf-8")
        assert not any(
            word in text for word in ("pytest." + "skip", "mark." + "skip", "importor" + "skip", "x" + "fail")
        )


INNER = "import pytest\n@pytest.mark.parametrize('i', range(3))\ndef test_it(i): pass\n"


def test_the_longest_files_start_first(tmp_path):
    assert all((ROOT / "tests" / path).is_file() for path in LONGEST)
    for path in (LONGEST[0], "aaa/test_first.py", LONGEST[1]):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(INNER)
    status, said = run(tmp_path, "def test_one(): pass", "--collect-only")
    found = [line.partition("::")[0] for line in said if "::" in line]
    assert (status, list(dict.fromkeys(found))) == (0, [*LONGEST[:2], "aaa/test_first.py", "test_inner.py"])


DRAWN = """
from drawn import count, examples
from hypothesis import given, strategies as st

@examples(40)
@given(st.lists(st.integers(0, 10**6)))
def test_one(found):
    with open("seen", "a") as file: print(found, file=file)
def test_two():
    with open("counted", "w") as file: print(count(7), file=file)
"""


def test_the_same_examples_are_drawn_everywhere_and_more_where_asked(tmp_path):
    def drawn(*words, **variables):
        assert run(tmp_path, DRAWN, *words, **variables)[0] == 0
        seen = (tmp_path / "seen").read_text()
        (tmp_path / "seen").unlink()
        return seen, int((tmp_path / "counted").read_text())

    usual, many = drawn(), drawn("--hypothesis-profile=long")
    assert usual == drawn(CI="true")
    assert (usual[0].count("\n"), usual[1]) == (40, 7)
    assert many[0].count("\n") >= 30 * 35  # it may draw one twice
    assert many[1] == 30 * 7
    assert drawn("--hypothesis-profile=long")[0] != many[0]
