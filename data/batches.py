"""The batches of a run: a step's images, masking noise and labels, the same bytes for any worker, process or resume."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..files.errors import Problem
from . import draws
from .augment import Augmentation
from .dataset import Dataset
from .images import BrokenImage

if TYPE_CHECKING:
    from PIL import Image

    from .loader import Loader

Batch = dict[str, NDArray[Any]]


class Batches:
    """A data set in the batches of training, or in order for evaluation.

    Everything is a function of the seed and the step: no state is kept, and any step can be had at any time.
    broken: by name, why images were left out (skip_broken), so far.
    """

    def __init__(
        self,
        dataset: Dataset,
        augmentation: Augmentation,
        batch_size: int,
        seed: int,
        num_patches: int | None = None,
        drop_last: bool = True,
        skip_broken: bool = False,
        shuffle: bool = True,
    ):
        """batch_size: of the whole step, over all processes. num_patches: L of the masking noise; None: no noise.

        drop_last: leave out what remains of an epoch. skip_broken: put the next image of the data set in the place of one
        that cannot be decoded. shuffle: a new order each epoch; else the data set's. Raises Problem where no batch is full.
        """
        if batch_size < 1:
            raise Problem(f"The batch size is {batch_size}; it must be 1 at least.")
        if drop_last and batch_size > len(dataset):
            raise Problem(
                f"The batch size is {batch_size}, and {dataset.path} holds {len(dataset)} images, which fill no batch. A "
                f"batch size of at most {len(dataset)} fits."
            )
        self.dataset, self.augmentation, self.batch_size, self.seed = dataset, augmentation, batch_size, seed
        self.num_patches, self.drop_last, self.skip_broken, self.shuffle = num_patches, drop_last, skip_broken, shuffle
        self.broken: dict[str, str] = {}
        self._lock = threading.Lock()
        self._orders: dict[int, NDArray[np.int64]] = {}  # of the last two epochs: workers are ahead of the consumer
        draws.generator(seed, "order", 0, 0)  # refuses a seed that is none

    @property
    def steps_per_epoch(self) -> int:
        """The batches of an epoch, with the last that is not full where it is not dropped."""
        return len(self.dataset) // self.batch_size if self.drop_last else -(-len(self.dataset) // self.batch_size)

    def epoch_and_position(self, step: int) -> tuple[int, int]:
        """The epoch of a step and its place in it, both from 0. step: counted from 0 since the run began."""
        return divmod(step, self.steps_per_epoch)

    def indices(self, step: int) -> NDArray[np.int64]:
        """Which images the step has: int64 [B], B less than the batch size at most in an epoch's last step."""
        epoch, position = self.epoch_and_position(step)
        return self._order_of(epoch)[position * self.batch_size : (position + 1) * self.batch_size]

    def size(self, step: int) -> int:
        """The images of a step."""
        first = self.epoch_and_position(step)[1] * self.batch_size
        return min(self.batch_size, len(self.dataset) - first)

    def batch(self, step: int) -> Batch:
        """imgs float32 [B, C, height, width]; noise float32 [B, L] where there are patches; labels int64 [B] where there are.

        Raises BrokenImage for an image that cannot be decoded, unless it is skipped.
        """
        return self.part(step, 0, self.size(step))

    def part(self, step: int, start: int, stop: int) -> Batch:
        """The same of the places start to stop (excluded) of the batch: the bytes of the whole batch's slice."""
        whole = self.empty(stop - start)
        for place in range(start, stop):
            self.fill(whole, place - start, step, place)
        return whole

    def empty(self, count: int) -> Batch:
        """Arrays for a batch of so many images, not yet filled."""
        made: Batch = {"imgs": np.empty((count, self.augmentation.channels, *self.augmentation.size), np.float32)}
        if self.num_patches is not None:
            made["noise"] = np.empty((count, self.num_patches), np.float32)
        if self.dataset.classes:
            made["labels"] = np.empty(count, np.int64)
        return made

    def fill(self, arrays: Batch, row: int, step: int, place: int) -> None:
        """Put the image at a place of a step's batch into a row of such arrays, with its noise and its label."""
        epoch, position = self.epoch_and_position(step)
        in_epoch = position * self.batch_size + place
        index, image = self._decoded(int(self._order_of(epoch)[in_epoch]))
        try:
            self.augmentation.into(arrays["imgs"][row], image, self.seed, epoch, in_epoch)
        except Problem as problem:
            raise Problem(f"{self.dataset.name(index)} of {self.dataset.path}: {problem}") from None
        if self.num_patches is not None:
            arrays["noise"][row] = draws.mask_noise(self.seed, epoch, in_epoch, self.num_patches)
        if "labels" in arrays:
            arrays["labels"][row] = self.dataset.label(index)

    def digest(self, steps: int | Iterable[int], most: int | None = None) -> str:
        """SHA-256 of the batches of these steps, or of the first so many: names, dtypes, shapes and bytes.

        most: of each batch only so many images, from its first on.
        """
        whole = hashlib.sha256()
        for step in range(steps) if isinstance(steps, int) else steps:
            size = self.size(step)
            for name, array in self.part(step, 0, size if most is None else min(size, most)).items():
                whole.update(f"{step} {name} {array.dtype.str} {array.shape} ".encode())
                whole.update(array.data)
        return whole.hexdigest()

    def loader(
        self, first: int, last: int, workers: int = 2, depth: int = 2, start: int = 0, stop: int | None = None
    ) -> Loader:
        """The batches of the steps first to last (excluded), made ahead by threads: `with batches.loader(...) as loader`.

        workers: threads; 0: each batch is made when it is asked for. depth: batches that are made ahead. start, stop: the
        part of every batch that this process takes.
        """
        from .loader import Loader

        return Loader(self, first, last, workers, depth, start, stop)

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        with self._lock:
            if epoch not in self._orders:
                count = len(self.dataset)
                order = draws.order(self.seed, epoch, count) if self.shuffle else np.arange(count, dtype=np.int64)
                order.flags.writeable = False
                self._orders = dict(list(self._orders.items())[-1:]) | {epoch: order}
            return self._orders[epoch]

    def _decoded(self, index: int) -> tuple[int, Image.Image]:
        """An image, and which one it is: the next good one where broken ones are skipped."""
        channels, upright = self.augmentation.channels, self.augmentation.upright
        for offset in range(len(self.dataset)):
            other = (index + offset) % len(self.dataset)
            try:
                return other, self.dataset.image(other, channels, upright)
            except BrokenImage as problem:
                if not self.skip_broken:
                    raise
                with self._lock:
                    self.broken[self.dataset.name(other)] = str(problem)
        raise Problem(f"None of the {len(self.dataset)} images of {self.dataset.path} can be decoded.")
