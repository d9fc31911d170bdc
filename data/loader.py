"""Batches made ahead by threads: Pillow lets others compute while it decodes and resizes."""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING

from ..files.errors import Problem

if TYPE_CHECKING:
    from .batches import Batch, Batches

_MOST_OF_A_TASK = 16  # images, or pairs that are mixed: small, so that the workers end a batch together and stop soon


class _Stopped(Exception):
    """The loader was closed while an image was to be made."""


class Loader:
    """Gives (step, batch) for one step after the other; a context manager that leaves no thread behind.

    waited: seconds that the consumer has waited for batches so far (with no workers, the time of making them).
    """

    def __init__(
        self,
        batches: Batches,
        first: int,
        last: int,
        workers: int = 2,
        depth: int = 2,
        start: int = 0,
        stop: int | None = None,
    ):
        """See Batches.loader. Raises Problem for a negative number of workers, or a depth below 1."""
        if workers < 0 or depth < 1:
            raise Problem(f"{workers} workers and a depth of {depth}: at least 0 workers and 1 batch ahead are needed.")
        self.batches, self.waited = batches, 0.0
        self._next, self._last, self._part = first, last, (start, stop)
        self._depth, self._workers = depth, workers
        self._pool = ThreadPoolExecutor(workers, "polymae-data") if workers else None
        self._pending: deque[tuple[int, Batch, list[Future[None]]]] = deque()
        self._stopped = threading.Event()

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Loader:
        return self

    def __next__(self) -> tuple[int, Batch]:
        """The next step and its batch. Raises what the making of one of its images raised."""
        if self._stopped.is_set():
            raise Problem("This loader is closed; open another one.")
        began = time.perf_counter()
        try:
            return self._made_here() if self._pool is None else self._made_ahead(self._pool)
        finally:
            self.waited += time.perf_counter() - began

    def close(self) -> None:
        """End the threads: each ends the image that it is at, and no more are begun."""
        self._stopped.set()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pending.clear()

    def _made_here(self) -> tuple[int, Batch]:
        if self._next >= self._last:
            raise StopIteration
        step, self._next = self._next, self._next + 1
        start, stop = self._places(step)
        return step, self.batches.part(step, start, stop)

    def _made_ahead(self, pool: ThreadPoolExecutor) -> tuple[int, Batch]:
        while len(self._pending) < self._depth and self._next < self._last:
            self._begin(pool, self._next)
            self._next += 1
        if not self._pending:
            raise StopIteration
        step, batch, tasks = self._pending.popleft()
        for task in tasks:
            task.result()
        if self._next < self._last:  # the place of the batch that is handed out
            self._begin(pool, self._next)
            self._next += 1
        return step, batch

    def _begin(self, pool: ThreadPoolExecutor, step: int) -> None:
        start, stop = self._places(step)
        batch = self.batches.empty(stop - start)
        groups = self.batches.groups(step, start, stop)
        size = max(1, min(_MOST_OF_A_TASK, -(-len(groups) // self._workers)))
        tasks = [
            pool.submit(self._fill, batch, start, step, groups[first : first + size])
            for first in range(0, len(groups), size)
        ]
        self._pending.append((step, batch, tasks))

    def _fill(self, batch: Batch, start: int, step: int, groups: list[tuple[int, ...]]) -> None:
        for places in groups:
            if self._stopped.is_set():
                raise _Stopped
            self.batches.fill(batch, start, step, places)

    def _places(self, step: int) -> tuple[int, int]:
        start, stop = self._part
        size = self.batches.size(step)
        return min(start, size), size if stop is None else min(stop, size)
