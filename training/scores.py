"""How a classifier did on each image, and what these scores come to: top-1, top-5 and loss by images, per class.

A score is of one image and its place in the data set, so that the parts that several processes take are put together to the
numbers of one process, bit for bit: counts are whole numbers, and sums are correctly rounded (math.fsum) in any order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files.errors import Problem

Whole = NDArray[np.int64]


@dataclass(frozen=True)
class Scores:
    """Of n images, an array each: int64 [n], losses float64 [n].

    places: in the data set's order. labels, predictions: in the model's classes. ranks: how many classes have a larger
    logit than the label's, those of the same logit with a smaller number included: 0 is right. losses: cross entropy, nats.
    """

    places: Whole
    labels: Whole
    predictions: Whole
    ranks: Whole
    losses: NDArray[np.float64]

    @classmethod
    def of(cls, places: Whole, labels: Whole, logits: NDArray[Any], columns: Whole | None = None) -> Scores:
        """From logits [n, classes]. columns: the classes that are told apart, ascending (None: all).

        Raises Problem for a label that is none of them, or logits that are not finite.
        """
        chosen = np.asarray(logits, np.float64)
        columns = np.arange(chosen.shape[1], dtype=np.int64) if columns is None else columns
        chosen = chosen[:, columns]
        truth = np.minimum(np.searchsorted(columns, labels), len(columns) - 1)
        wrong = columns[truth] != labels
        if wrong.any():
            raise Problem(
                f"The image at place {places[wrong][0]} has the label {labels[wrong][0]}, and the classes go from "
                f"{columns[0]} to {columns[-1]}: give a class map that leads to the model's classes, or another head."
            )
        if not np.isfinite(chosen).all():
            place = places[~np.isfinite(chosen).all(axis=1)][0]
            raise Problem(
                f"The logits of the image at place {place} are not finite: the weights or the precision are at fault. "
                "`polymae inspect` looks through the weights."
            )
        own = np.take_along_axis(chosen, truth[:, None], 1)  # [n, 1]
        earlier = np.arange(len(columns)) < truth[:, None]
        ranks = ((chosen > own) | ((chosen == own) & earlier)).sum(axis=1, dtype=np.int64)
        top = chosen.max(axis=1, keepdims=True)
        losses = np.log(np.exp(chosen - top).sum(axis=1)) + (top - own)[:, 0]
        return cls(places, labels, columns[chosen.argmax(axis=1)], ranks, losses)

    @classmethod
    def joined(cls, parts: Sequence[Scores]) -> Scores:
        """All parts as one, in the data set's order. Raises Problem where an image is in two of them."""
        whole = {one.name: np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(cls)}
        order = np.argsort(whole["places"], kind="stable")
        ordered = cls(**{name: array[order] for name, array in whole.items()})
        twice = ordered.places[1:][np.diff(ordered.places) == 0]
        if len(twice):
            raise Problem(
                f"The image at place {twice[0]} is in more than one part ({len(twice)} images are); each part is of other "
                "images: 1/4, 2/4, 3/4, 4/4."
            )
        return ordered

    def result(self, classes: int, names: Sequence[str] = (), batch_size: int | None = None) -> Result:
        """What they come to. classes: of the model. names: of its classes. batch_size: gives the official loss, too."""
        if not len(self.places):
            raise Problem("No image was evaluated; the data set, or the part of it, is empty.")
        confusion = np.zeros((classes, classes), np.int64)
        np.add.at(confusion, (self.labels, self.predictions), 1)
        among_five = np.bincount(self.labels[self.ranks < 5], minlength=classes)
        loss = math.fsum(self.losses) / len(self.losses)
        official = None if batch_size is None else self._of_batches(batch_size)
        return Result(confusion, among_five, loss, official, tuple(names))

    def _of_batches(self, size: int) -> float:
        batches = self.places // size
        starts = np.flatnonzero(np.diff(batches, prepend=-1))
        means = [math.fsum(part) / len(part) for part in np.split(self.losses, starts[1:])]
        return math.fsum(means) / len(means)


@dataclass(frozen=True)
class Result:
    """How a classifier did on a data set.

    confusion: int64 [classes, classes], how many images of a row's class were taken for a column's. among_five: int64
    [classes], how many images of a class had it among the five likeliest. loss: mean cross entropy of the images, in nats.
    official_loss: the mean of the batches' means, unweighted, as engine_finetune.py of the official code computes it: a last
    batch that is smaller counts as much as the others; None where it was not asked for. names: of the model's classes.
    """

    confusion: Whole
    among_five: Whole
    loss: float
    official_loss: float | None = None
    names: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """The images."""
        return int(self.confusion.sum())

    @property
    def top1(self) -> float:
        """Percent of the images whose likeliest class is theirs."""
        return 100 * int(np.trace(self.confusion)) / self.n

    @property
    def top5(self) -> float:
        """Percent of the images whose class is among the five likeliest."""
        return 100 * int(self.among_five.sum()) / self.n

    def name(self, number: int) -> str:
        """What a class is called: its number where it has no name."""
        return self.names[number] if self.names else str(number)

    @property
    def per_class(self) -> list[dict[str, Any]]:
        """For each class that has images: class (its number), name, n, top1 and top5 in percent."""
        counts = self.confusion.sum(axis=1)
        return [
            {
                "class": int(number), "name": self.name(int(number)), "n": int(counts[number]),
                "top1": 100 * int(self.confusion[number, number]) / int(counts[number]),
                "top5": 100 * int(self.among_five[number]) / int(counts[number]),
            }
            for number in np.flatnonzero(counts)
        ]  # fmt: skip

    @property
    def shown(self) -> Whole:
        """The classes that are some image's, or were taken for some image's."""
        return np.flatnonzero(self.confusion.sum(axis=0) + self.confusion.sum(axis=1)).astype(np.int64)

    def facts(self) -> dict[str, Any]:
        """As JSON: top1, top5 (percent), loss, n, official_loss where it was asked for, per_class and confusion."""
        official = {} if self.official_loss is None else {"official_loss": self.official_loss}
        shown = self.shown
        return {
            "top1": self.top1, "top5": self.top5, "loss": self.loss, "n": self.n, **official, "per_class": self.per_class,
            "confusion": {
                "classes": [self.name(int(number)) for number in shown],
                "counts": self.confusion[np.ix_(shown, shown)].tolist(),
            },
        }  # fmt: skip
