"""Damage checkpoints at random, and see that each is read or refused: soon, in little memory, with nothing else done.

.venv/bin/python tests/fuzz.py --count 20000 --seed 1                    every format
.venv/bin/python tests/fuzz.py --format pth --seed 1 --only 1234         one file again, with its traceback
"""

from __future__ import annotations

import argparse
import json
import mmap
import random
import resource
import shutil
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fuzz_mutations import mutate
from fuzz_seeds import FOLDER, KINDS, LINK, PIPE, Seed, seeds
from guard import Guard, Read, in_child, limit

from polymae.convert.checkpoint import open_checkpoint
from polymae.convert.formats import find_format
from polymae.convert.provenance import beside
from polymae.convert.tensors import CheckpointProblem, to_bytes

OUTCOMES = ("opened", "read", "refused", "wrong")  # opened: known as a model, too
_NOW, _SLOWEST, _PEAK = 4, 5, 6  # after the counts of the outcomes: index, microseconds, kB


@dataclass
class Figures:
    """What became of a number of damaged files. findings: (index, what happened) of those that went wrong."""

    count: int
    outcomes: dict[str, int]
    seconds: float
    slowest: float  # seconds of CPU time
    memory: float  # bytes beyond those before the first
    findings: list[tuple[int, str]]

    def __str__(self) -> str:
        counts = ", ".join(f"{number:,} {outcome}" for outcome, number in self.outcomes.items())
        return (
            f"{self.count:,} files: {counts}; slowest {self.slowest * 1e3:.0f} ms, memory +{self.memory / 2**20:.0f} MiB; "
            f"{self.count / self.seconds:,.0f} files/s"
        )


def read_whole(path: Path) -> str:
    """Read every value of a checkpoint, by its format and then as a model; the outcome."""
    problem = _refused(path)
    if problem:
        assert str(path) in problem, f"a message that does not name the file: {problem}"
        return "refused"
    try:
        checkpoint = open_checkpoint(path)
        if checkpoint.config:
            checkpoint.weights(checkpoint.config)
    except CheckpointProblem:
        return "read"
    return "opened"


def _refused(path: Path) -> str:
    try:
        _, form = find_format(path)
        for tensor in form.read(path).tensors.values():
            array = tensor.load()
            assert array.shape == tensor.shape, f"{array.shape} is not the promised {tensor.shape}"
            assert array.nbytes == tensor.nbytes, f"{array.nbytes} bytes, not the promised {tensor.nbytes}"
            zlib.crc32(to_bytes(array))  # touches every byte
    except CheckpointProblem as problem:
        return str(problem) or "an empty message"
    return ""


def damaged(corpus: list[Seed], seed: int, index: int, path: Path) -> None:
    """Put the damaged file or folder of this number at a path, where the last one may still be."""
    drawn = random.Random(f"{seed}/{index}")
    chosen, other = drawn.choice(corpus), drawn.choice(corpus)
    parts = dict(chosen.parts)
    names = sorted(parts)
    for _ in range(drawn.choice((1, 1, 2))):
        name, from_name = drawn.choice(names), drawn.choice(sorted(other.parts))
        if len(names) > 1 and drawn.random() < 0.15:
            taken, second = parts.pop(name, b""), drawn.choice([*names, f"{name}x"])
            fault = drawn.choice(("remove", "rename", "swap", *([LINK, PIPE, FOLDER] if chosen.is_folder else [])))
            if isinstance(fault, bytes):
                parts[name] = fault
            elif fault == "rename":
                parts[second] = taken
            elif fault == "swap":
                parts[name], parts[second] = parts.get(second, b""), taken
        else:
            parts[name] = mutate(drawn, parts.get(name, b""), other.parts[from_name])
    _put(Seed(parts, chosen.build), path)


def _put(seed: Seed, path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
        beside(path).unlink(missing_ok=True)
    seed.build(seed.parts, path)


def fuzz(corpus: list[Seed], count: int, seed: int, folder: Path, read: Read = read_whole) -> Figures:
    """Read `count` damaged files in a child process, which is started again after each that it does not survive.

    corpus: seeds of one format. folder: an existing one, for the damaged file and the list of findings.
    """
    path, log = folder / "checkpoint", folder / "findings"
    for number, sound in enumerate(corpus):
        _put(sound, path)
        assert read_whole(path) != "refused", f"seed {number} is refused as it is: {_refused(path)}"
    log.touch()
    box = np.frombuffer(mmap.mmap(-1, 64), np.int64)  # shared with the child
    dead: list[tuple[int, str]] = []
    first, began = 0, time.perf_counter()

    def work() -> None:
        guard = Guard(path)
        limit()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with log.open("a") as file:
            for index in range(first, count):
                box[_NOW] = index
                damaged(corpus, seed, index, path)
                seen = guard.watch(read)
                box[OUTCOMES.index("wrong" if seen.wrong else seen.outcome)] += 1
                box[_SLOWEST] = max(box[_SLOWEST], int(seen.seconds * 1e6))
                box[_PEAK] = max(box[_PEAK], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
                if seen.wrong:
                    print(json.dumps([index, seen.wrong]), file=file, flush=True)

    while died := in_child(work):
        dead.append((int(box[_NOW]), died))
        box[OUTCOMES.index("wrong")] += 1
        first = max(first, int(box[_NOW])) + 1
    findings = [(index, what) for index, what in map(json.loads, log.read_text().splitlines())]
    outcomes = {outcome: int(box[i]) for i, outcome in enumerate(OUTCOMES)}
    seconds = time.perf_counter() - began
    return Figures(count, outcomes, seconds, box[_SLOWEST] / 1e6, box[_PEAK] * 1024, sorted(dead + findings))


def main() -> int:
    """Fuzz; one line of figures for each format, and the findings; status 1 where there are any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", choices=KINDS, action="append", help="only this one; may be given again")
    parser.add_argument("--count", type=int, default=20_000, help="damaged files for each format (default: 20000)")
    parser.add_argument("--seed", type=int, default=1, help="the same number, the same damage (default: 1)")
    parser.add_argument("--only", type=int, metavar="INDEX", help="read one damaged file again, in this process")
    args = parser.parse_args()
    found = False
    for name in args.format or KINDS:
        memory = Path("/dev/shm")
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as made:
            folder = Path(made)
            corpus = seeds(name, folder / "seeds")
            if args.only is not None:
                damaged(corpus, args.seed, args.only, folder / "checkpoint")
                print(read_whole(folder / "checkpoint"), _refused(folder / "checkpoint"))
                continue
            figures = fuzz(corpus, args.count, args.seed, folder)
            print(f"{name:12} {figures}", flush=True)
            for index, what in figures.findings[:40]:
                print(f"    {index}: {what}", flush=True)
            found |= bool(figures.findings)
    return int(found)


if __name__ == "__main__":
    sys.exit(main())
