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
from .mixing import Mix, Mixing, check_fit

if TYPE_CHECKING:
    from PIL import Image

    from .loader import Loader

Batch = dict[str, NDArray[Any]]
_KEPT_MIXES = 15  # steps, of which the mix is not drawn again for each pair of images


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
        mixing: Mixing | None = None,
        drop_path: tuple[int, float] | None = None,
    ):
        """batch_size: of the whole step, over all processes. num_patches: L of the masking noise; None: no noise.

        drop_last: leave out what remains of an epoch. skip_broken: put the next image of the data set in the place of one
        that cannot be decoded. shuffle: a new order each epoch; else the data set's.
        mixing: mixup and CutMix, and soft targets in place of labels where it has classes. drop_path: depth of the model and
        highest rate; of a rate of 0 there are no factors. Raises Problem where no batch is full, and for what does not fit the
        data set.
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
        self.mixing, self.drop_path = mixing, drop_path if drop_path and drop_path[1] else None
        self.broken: dict[str, str] = {}
        self._lock = threading.Lock()
        self._orders: dict[int, NDArray[np.int64]] = {}  # of the last two epochs: workers are ahead of the consumer
        self._mixes: dict[int, Mix] = {}  # of the last steps, for the same reason
        draws.generator(seed, "order", 0, 0)  # refuses a seed that is none
        if mixing is not None:
            sizes = (self.size(0), self.size(self.steps_per_epoch - 1))
            check_fit(mixing, str(dataset.path), len(dataset.classes), sizes)
        if drop_path is not None and not (0 <= drop_path[1] < 1 and drop_path[0] >= 1):
            raise Problem(
                f"drop_path is {drop_path[1]} for {drop_path[0]} blocks; it is the last block's probability, from 0 to less "
                "than 1.",
                code="bad-argument",
            )

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

        With mixing, targets float32 [B, classes] in place of labels; with drop_path, drop_path float32 [B, depth, 2].
        Raises BrokenImage for an image that cannot be decoded, unless it is skipped; Problem for a label that is no class.
        """
        return self.part(step, 0, self.size(step))

    def part(self, step: int, start: int, stop: int) -> Batch:
        """The same of the places start to stop (excluded) of the batch: the bytes of the whole batch's slice.

        Where images are mixed, those outside that are mixed in are decoded as well.
        """
        whole = self.empty(stop - start)
        for places in self.groups(step, start, stop):
            self.fill(whole, start, step, places)
        return whole

    def empty(self, count: int) -> Batch:
        """Arrays for a batch of so many images, not yet filled."""
        made: Batch = {"imgs": np.empty((count, self.augmentation.channels, *self.augmentation.size), np.float32)}
        if self.num_patches is not None:
            made["noise"] = np.empty((count, self.num_patches), np.float32)
        if self.mixing is not None and self.mixing.classes:
            made["targets"] = np.empty((count, self.mixing.classes), np.float32)
        elif self.dataset.classes:
            made["labels"] = np.empty(count, np.int64)
        if self.drop_path is not None:
            made["drop_path"] = np.empty((count, self.drop_path[0], 2), np.float32)
        return made

    def groups(self, step: int, start: int, stop: int) -> list[tuple[int, ...]]:
        """The places start to stop (excluded) of a step's batch, those together that are mixed with each other."""
        if not self._mix(step).pairs:
            return [(place,) for place in range(start, stop)]
        last = self.size(step) - 1
        return sorted({(min(place, last - place), max(place, last - place)) for place in range(start, stop)})

    def fill(self, arrays: Batch, start: int, step: int, places: tuple[int, ...]) -> None:
        """Put the images of a group into such arrays, which hold the places from start on, with everything of theirs.

        The group's places that are not in the arrays are only mixed in.
        """
        epoch, position = self.epoch_and_position(step)
        first, rows = position * self.batch_size, range(len(arrays["imgs"]))
        imgs = [arrays["imgs"][at - start] if at - start in rows else self.empty(1)["imgs"][0] for at in places]
        labels = [self._image_into(img, epoch, first + place) for img, place in zip(imgs, places)]
        mix = self._mix(step)
        if len(places) == 2:
            mix.images(*imgs)
        for place, label, partner in zip(places, labels, labels[::-1]):
            row = place - start
            if row not in rows:
                continue
            if self.num_patches is not None:
                arrays["noise"][row] = draws.mask_noise(self.seed, epoch, first + place, self.num_patches)
            if "labels" in arrays:
                arrays["labels"][row] = label
            if "targets" in arrays and self.mixing is not None:
                arrays["targets"][row] = self.mixing.target(
                    -1 if label is None else label, -1 if partner is None else partner, mix.lam
                )
            if self.drop_path is not None:
                arrays["drop_path"][row] = draws.drop_path(self.seed, epoch, first + place, *self.drop_path)

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

    def _mix(self, step: int) -> Mix:
        """How the images of a step are mixed."""
        if self.mixing is None:
            return Mix()
        with self._lock:
            if step not in self._mixes:
                drawn = draws.generator(self.seed, "mix", *self.epoch_and_position(step))
                mix = self.mixing.drawn(drawn, *self.augmentation.size)
                self._mixes = dict(list(self._mixes.items())[-_KEPT_MIXES:]) | {step: mix}
            return self._mixes[step]

    def _image_into(self, img: NDArray[np.float32], epoch: int, in_epoch: int) -> int | None:
        """Prepare the image at a place of an epoch; its label."""
        index, image = self._decoded(int(self._order_of(epoch)[in_epoch]))
        try:
            self.augmentation.into(img, image, self.seed, epoch, in_epoch)
        except Problem as problem:
            raise Problem(f"{self.dataset.name(index)} of {self.dataset.path}: {problem}") from None
        return self.dataset.label(index)

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
