"""A short slice of tests/fuzz.py for every format, and faults planted in a reader, each of which it must find."""

import os
import random
import subprocess
from pathlib import Path

import guard
import numpy as np
import pytest
from drawn import count
from fuzz import fuzz
from fuzz_mutations import MUTATIONS
from fuzz_seeds import KINDS, seeds

from polymae.convert.formats import FORMATS

COUNT = count(200)


@pytest.mark.drawn
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_read_or_refused(kind, tmp_path):
    figures = fuzz(seeds(kind, tmp_path / "seeds"), COUNT, 5, tmp_path)
    assert not figures.findings
    assert sum(figures.outcomes.values()) == COUNT
    assert figures.outcomes["refused"] > COUNT // 4  # the damage shows,
    assert figures.outcomes["read"] + figures.outcomes["opened"]  # and does not hide everything else


def test_every_format_is_fuzzed():
    assert set(FORMATS) <= set(KINDS)


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_mutations_change_bytes_and_can_be_repeated(mutation):
    data, other = bytes(range(256)) + b'{"shape": [12, 4]}', b"other" * 20
    made = [mutation(random.Random(seed), data, other) for seed in range(20)]
    assert made == [mutation(random.Random(seed), data, other) for seed in range(20)]
    assert sum(one != data for one in made) > 10
    for empty in (b"", b"a"):
        assert all(isinstance(mutation(random.Random(seed), empty, b""), bytes) for seed in range(20))


def raises(path):
    return {}[path.name]


def takes_memory(path):
    return str(np.ones(100_000_000)[0])


def takes_time(path):
    while True:
        pass


def crashes(path):
    os._exit(3)


def writes(path):
    path.with_name("other").write_text("x")


def writes_inside(path):
    path.write_text("x")


def reads_elsewhere(path):
    Path("/etc/passwd").read_text()


def hides_what_it_reads(path):
    try:
        reads_elsewhere(path)
    except OSError:
        return "refused"


def removes(path):
    path.unlink()


def calls_a_shell(path):
    os.system("true")


def starts_a_process(path):
    subprocess.run(["true"], check=True)


def imports(path):
    import this  # noqa: F401


def runs_code(path):
    exec("path = 1")


FAULTS = {
    raises: "KeyError at test_fuzz.py", takes_memory: "MemoryError at ", takes_time: "took more than 0.2 s",
    crashes: "the process died (status 3)", writes: "/other to write", writes_inside: "/checkpoint to write",
    reads_elsewhere: "opened /etc/passwd, outside the checkpoint", hides_what_it_reads: "opened /etc/passwd, outside",
    removes: "did os.remove", calls_a_shell: "did os.system", starts_a_process: "did ", imports: "did import ('this'",
    runs_code: "did exec",
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_found(fault, tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "CPU_SECONDS", 0.2)
    calls = np.zeros(1, int)

    def read(path):
        calls[0] += 1
        return fault(path) if calls[0] == 4 else "refused"

    figures = fuzz(seeds("mindspore", tmp_path / "seeds"), 7, 1, tmp_path, read)
    index, what = figures.findings[0]
    assert index == 3
    assert FAULTS[fault] in what
    assert not (tmp_path / "other").exists()
