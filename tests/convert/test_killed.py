"""Killed, or out of room, at any moment of writing: the target is absent, the old one or complete, and the next one works."""

import os
import random
import resource
import shutil
import signal
import sys
import time
from functools import partial
from pathlib import Path

import drawn
import pytest
from fuzz_seeds import CONFIG
from guard import in_child

from polymae import convert, files
from polymae.backends.initial import initial_weights
from polymae.convert.checkpoint import open_checkpoint
from polymae.convert.dialects import DIALECTS
from polymae.convert.formats import FORMATS
from polymae.convert.hashing import content_hash
from polymae.convert.provenance import Provenance, beside, read_beside
from polymae.convert.targets import TARGETS
from polymae.convert.tensors import CheckpointProblem, State, of_array
from polymae.convert.transform import WeightSet
from polymae.convert.writing import write_weights

OURS = tuple(str(Path(package.__file__).parent) for package in (convert, files))
WRITTEN = {
    target.formats[0]: target.dialect for target in TARGETS.values()
}  # every format, in a dialect it is written in
# The parts of a conversion, by the functions that they are; the first one is the rest.
PARTS = ("write_weights", "write", "_compare", "flush", "_put_in_place", "replacing")
BY_HASH = {content_hash(weights): weights for weights in (initial_weights(CONFIG, seed=seed) for seed in (1, 2))}
FIRST, SECOND = BY_HASH


@pytest.fixture(params=WRITTEN)
def form(request):
    return request.param


def write(form, target, digest):
    tensors = {name: of_array(array) for name, array in BY_HASH[digest].items()}
    weights, about = WeightSet(CONFIG, "mae", tensors), lambda hashed: Provenance(hashed.content, WRITTEN[form])
    assert write_weights(weights, DIALECTS[WRITTEN[form]], form, target, about) == digest


def found(target):
    """The content hash of what is at the target; None where nothing is. Raises where it is not whole."""
    if not os.path.lexists(target):
        return None
    checkpoint = open_checkpoint(target)
    said = read_beside(target, State({}))
    if said is not None and said.hash != checkpoint.hash:  # killed between the two: told, and never used in silence
        with pytest.raises(CheckpointProblem) as caught:
            checkpoint.weights(CONFIG)
        assert caught.value.code == "bad-note"
    return checkpoint.hash


def strays(target):
    return [path.name for path in target.parent.iterdir() if path not in (target, beside(target))]


class Lines:
    """For sys.settrace: counts the lines of our code that run in each of PARTS; kills the process before one of them."""

    def __init__(self, part="", number=0):
        self.counts, self.running, self.end = dict.fromkeys(PARTS, 0), [PARTS[0]], (part, number)

    def __call__(self, frame, event, arg):
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        if event == "line":
            part = self.running[-1]
            self.counts[part] += 1
            if (part, self.counts[part]) == self.end:
                os.kill(os.getpid(), signal.SIGKILL)
        elif frame.f_code.co_name in PARTS and event in ("call", "return"):
            self.running.append(frame.f_code.co_name) if event == "call" else self.running.pop()
        return self


def remove(target):
    beside(target).unlink(missing_ok=True)
    shutil.rmtree(target) if target.is_dir() else target.unlink()


def killed_after(seconds, work):
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def time_of(work):
    """Seconds that work in a child of its own takes."""
    began = time.perf_counter()
    assert not in_child(work)
    return time.perf_counter() - began


@pytest.mark.drawn
def test_killed_at_any_moment(form, tmp_path):
    """Half of the moments are lines of the code, in each part of it in turn; half are points in time."""
    target, rng = tmp_path / f"w{FORMATS[form].ENDINGS[0]}", random.Random(form)
    lines = Lines()
    write(form, target, FIRST)
    seconds = min(time_of(partial(write, form, target, FIRST)) for _ in range(3))  # later ones may take longer
    sys.settrace(lines)
    write(form, target, SECOND)
    sys.settrace(None)
    killed = dict.fromkeys((*PARTS, "in time"), 0)
    for number in range(drawn.count(60)):
        if number % 20 == 0:  # a whole conversion in between, after which there is something, or nothing, to replace
            write(form, target, FIRST)
            assert not strays(target)
            if number % 40:
                remove(target)
        before = found(target)
        new = SECOND if before == FIRST else FIRST
        part = PARTS[number // 2 % len(PARTS)]

        def convert_until(line, new=new, part=part):
            sys.settrace(Lines(part, line))
            write(form, target, new)

        if number % 2:
            killed[part] += "SIGKILL" in in_child(partial(convert_until, rng.randint(1, lines.counts[part])))
        else:
            killed["in time"] += killed_after(rng.random() * seconds, partial(write, form, target, new))
        assert found(target) in (before, new)
    write(form, target, FIRST)
    assert found(target) == FIRST
    assert not strays(target)
    assert all(killed.values()), killed


def test_no_room_at_any_moment(form, tmp_path):
    """The kernel refuses to let a file grow beyond a random size."""
    target, rng = tmp_path / "made" / f"w{FORMATS[form].ENDINGS[0]}", random.Random(form)
    write(form, target, FIRST)
    files = [path for path in (target, *target.rglob("*")) if path.is_file()]
    largest = max(path.stat().st_size for path in files)
    for number in range(30):
        if number == 15:
            remove(target)
            target.parent.rmdir()
        before = found(target)

        room = rng.randrange(largest)

        def fail(room=room):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
            with pytest.raises(CheckpointProblem, match=r"Could not write .*File too large.*give a folder with room"):
                write(form, target, SECOND)

        assert not in_child(fail)
        assert found(target) == before
        assert target.parent.exists() == bool(before)
        assert not before or not strays(target)
    write(form, target, SECOND)
    assert found(target) == SECOND
    assert not strays(target)
