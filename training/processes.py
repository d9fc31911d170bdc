"""An evaluation by several processes of this machine, whose parts are put together to the numbers of one.

One protocol: the child gets its part as JSON on stdin, and says on stdout, a line of JSON each, how many images are done, or why
it gives up. Its stdin is open as long as the parent lives: where it ends, so does the child.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..backends.blas import thread_variables, variables
from ..backends.installing import in_words
from ..backends.interpreters import FOLDER, interpreter
from ..files.errors import Problem
from .evaluate import Evaluation, evaluate_part, labelled_images
from .measured import Asked
from .parts import Part, joined, read_part

_LAST_WORDS = 300  # letters of what a process that died said last
_PATHS = ("data", "class_map", "names")
_TUPLES = ("image_size", "mean", "std")


def evaluate_in_processes(
    evaluation: Evaluation,
    count: int,
    begun: Callable[[int], object] = lambda total: None,
    after: Callable[[int], object] = lambda images: None,
) -> Part:
    """The scores of an evaluation, by so many processes, at most one for each batch: bit for bit those of one process.

    begun, after: as of evaluate_part. Raises Problem as evaluate, with the part's number, and for a process that dies; then, and
    where this one is stopped, all processes end.
    """
    if count < 1 or evaluation.part != (0, 1):
        raise Problem(
            f"{count} processes for part {evaluation.part[0] + 1} of {evaluation.part[1]} were asked for; give 1 or more, for "
            "all parts."
        )
    images = len(labelled_images(evaluation))
    count = max(1, min(count, -(-images // evaluation.batch_size)))
    begun(images)
    with tempfile.TemporaryDirectory(prefix="polymae-") as name:
        files = [Path(name) / f"{number}.npz" for number in range(count)]
        with _children(evaluation, files) as (told, children):
            running = set(range(count))
            while running:
                number, answer = told.get()
                if "done" in answer:
                    after(answer["done"])
                elif "problem" in answer:
                    raise Problem(f"Part {number + 1} of {count}: {answer['problem']}")
                elif children[number].wait() or not files[number].is_file():
                    raise Problem(f"Part {number + 1} of {count}: {children[number].reason()}")
                else:
                    running.remove(number)
        return joined([read_part(path) for path in files])


@dataclass(frozen=True)
class _Child:
    """A process, with the file of what it says on stderr."""

    process: subprocess.Popen[bytes]
    words: Path

    def wait(self) -> int:
        return self.process.wait()

    def reason(self) -> str:
        """Why it left no scores."""
        status = self.process.returncode
        if status < 0:
            killed = signal.Signals(-status).name
            return f"the process was killed by {killed}{' (out of memory?)' if killed == 'SIGKILL' else ''}."
        lines = self.words.read_text(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no message")
        return f"the process ended with status {status} and left no scores; its last words: {last[-_LAST_WORDS:]}"


@contextmanager
def _children(
    evaluation: Evaluation, files: list[Path]
) -> Iterator[tuple[queue.SimpleQueue[tuple[int, dict[str, Any]]], list[_Child]]]:
    """Processes for all parts, and the queue of what they say by number: {} where one says no more. None is left behind."""
    asked, told = evaluation.asked, queue.SimpleQueue[tuple[int, dict[str, Any]]]()
    children: list[_Child] = []
    try:
        for number, file in enumerate(files):
            words = file.with_suffix(".txt")
            with words.open("wb") as errors:
                process = subprocess.Popen(
                    [interpreter(asked.framework), "-m", "polymae.training.processes"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=os.environ
                    | variables(asked.framework)
                    | (thread_variables(asked.threads) if asked.threads else {})
                    | {FOLDER: os.devnull},  # it evaluates by itself: it knows of no other interpreter
                    cwd=file.parent,  # not the caller's: `-m` puts it on the path, where a folder called torch would win
                    start_new_session=True,  # Ctrl-C is for this process, which ends the others
                )
            children.append(_Child(process, words))
            threading.Thread(target=_listen, args=(number, process, told), daemon=True).start()
            part = _as_json(replace(evaluation, part=(number, len(files))), file)
            with suppress(BrokenPipeError):  # it died; what it said is told where it is missed
                assert process.stdin is not None
                process.stdin.write(part + b"\n")
                process.stdin.flush()
        yield told, children
    finally:
        for child in children:
            with suppress(OSError):
                os.killpg(
                    child.process.pid, signal.SIGKILL
                )  # its number is its own as long as nobody has waited for it
        for child in children:
            child.wait()
            assert child.process.stdin is not None
            with suppress(OSError):
                child.process.stdin.close()


def _listen(number: int, process: subprocess.Popen[bytes], told: queue.SimpleQueue[tuple[int, dict[str, Any]]]) -> None:
    """Put what a process says into the queue."""
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            with suppress(ValueError):
                answer = json.loads(line)
                if isinstance(answer, dict) and answer:
                    told.put((number, answer))
    told.put((number, {}))


def _as_json(evaluation: Evaluation, file: Path) -> bytes:
    """A part for a process that runs in another folder."""
    values = asdict(evaluation)
    for name in _PATHS:
        if values[name] is not None:
            values[name] = str(values[name].absolute())
    asked = values["asked"]
    asked["weights"] = str(asked["weights"].absolute())
    if asked["model"] is not None and asked["model"].endswith(".json"):
        asked["model"] = str(Path(asked["model"]).absolute())
    return json.dumps({"evaluation": values, "file": str(file)}).encode()


def _from_json(line: bytes) -> tuple[Evaluation, Path]:
    """The inverse of _as_json."""
    read = json.loads(line)
    values = read["evaluation"]
    asked = values["asked"]
    asked |= {name: tuple(asked[name]) for name in _TUPLES if asked[name] is not None}
    asked["weights"] = Path(asked["weights"])
    values |= {name: Path(values[name]) for name in _PATHS if values[name] is not None}
    return Evaluation(**{**values, "asked": Asked(**asked), "part": tuple(values["part"])}), Path(read["file"])


def _serve() -> None:
    """The child: evaluate the part that stdin describes."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a framework prints to stderr, not among the answers

    def say(**answer: Any) -> None:
        print(json.dumps(answer), file=out, flush=True)

    evaluation, file = _from_json(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        evaluate_part(evaluation, after=lambda images: say(done=images)).save(file)
    except Exception as problem:  # whatever it is, it is a reason
        say(problem=in_words(problem))
    out.close()
    sys.stderr.flush()
    os._exit(0)  # threads of a framework may hang at a regular end


def _end_with_the_parent() -> None:
    """Wait until nobody holds the other end of stdin, and leave at once."""
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    _serve()
