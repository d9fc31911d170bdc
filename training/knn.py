"""Nearest neighbours by an encoder's features: how well they tell classes apart, without any training.

Source: the weighted kNN classifier of Wu et al. 2018 (arXiv 1805.01978, section 3.4), as DINO evaluates it: cosine
similarity, exp(similarity / 0.07) as weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.runtime import Runtime
from ..data.batches import Batches
from ..data.dataset import Dataset
from ..data.datasets import has_split, open_dataset
from ..data.draws import order
from ..data.subset import Subset
from ..files.errors import Problem
from .measured import Asked, Ready, asked_of, features_of, ready, require_pooling

NEIGHBOURS, TEMPERATURE = 20, 0.07
_AT_ONCE = 64  # images
_SIMILARITIES = 2**25  # that are in memory at a time


@dataclass(frozen=True)
class Neighbouring:
    """A measurement by nearest neighbours to be done.

    asked: an autoencoder or a classifier, of which only the encoder is used. data: with train/ and val/, of which the first is
    the bank and the second is classified by it; or without parts, of which one half, drawn by `seed`, is the bank, and the
    other is classified. images: at most so many in each (drawn), None for all. k, temperature: of the weighted vote.
    """

    asked: Asked
    data: Path
    data_format: str | None = None
    k: int = NEIGHBOURS
    temperature: float = TEMPERATURE
    images: int | None = None
    seed: int = 0
    pooling: str | None = None
    batch_size: int = _AT_ONCE
    workers: int = 2


@dataclass(frozen=True)
class Neighbours:
    """How well neighbours name classes. top1, top5: percent of the queries. bank, queries: how many images."""

    top1: float
    top5: float
    bank: int
    queries: int
    about: dict[str, Any]

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return {"top1": self.top1, "top5": self.top5, "n": self.queries, "bank": self.bank, **self.about}


def knn(framework: str, data: str | Path, weights: str | Path, **options: Any) -> Neighbours:
    """How well nearest neighbours by frozen features tell classes apart; the command `polymae knn` as a function.

    weights: a checkpoint of any format and dialect, or a run's folder. options: those of Asked and Neighbouring. Raises
    Problem for anything that a person can mend, among it data without labels and a k of more than the bank's images.
    """
    asked = asked_of(framework, weights, options)
    return measure(Neighbouring(asked, Path(data), **options))


def measure(
    given: Neighbouring,
    begun: Callable[[int], object] = lambda total: None,
    after: Callable[[int], object] = lambda images: None,
) -> Neighbours:
    """As knn. begun: called with how many images there are, once all is checked; after: after each batch, with its images."""
    bank, queries = bank_and_queries(given)
    if not 1 <= given.k <= len(bank):
        raise Problem(f"k is {given.k}, and the bank holds {len(bank)} images; k goes from 1 to that.")
    if not 0 < given.temperature < float("inf"):
        raise Problem(f"The temperature is {given.temperature}; it must be above 0 ({TEMPERATURE} is usual).")
    model = ready(given.asked)
    pooling = require_pooling(given.pooling, model.config)
    begun(len(bank) + len(queries))
    (known, labels), (asked_for, truth) = (
        _features(given, model, dataset, pooling, after) for dataset in (bank, queries)
    )
    ranks = ranked(known, labels, asked_for, truth, given.k, given.temperature)
    top1, top5 = (100 * int((ranks < most).sum()) / len(ranks) for most in (1, 5))
    about = {**model.facts(), "k": given.k, "temperature": given.temperature, "seed": given.seed}
    return Neighbours(top1, top5, len(bank), len(queries), about)


def bank_and_queries(given: Neighbouring) -> tuple[Dataset, Dataset]:
    """The images whose labels are known, and those that are classified. Raises Problem where there are none, or no labels."""
    if given.images is not None and given.images < 1:
        raise Problem(f"images is {given.images}; it must be 1 at least, in the bank and of the queries.")
    if has_split(given.data, "val") and has_split(given.data, "train"):
        parts = [open_dataset(given.data, given.data_format, split, labelled=True) for split in ("train", "val")]
        _require_same_classes(*parts)
        drawn = [(part, order(given.seed, 0, len(part))[: given.images]) for part in parts]
    else:
        whole = open_dataset(given.data, given.data_format, "train", labelled=True)
        half = min(len(whole) // 2, given.images or len(whole))
        if half < 1:
            raise Problem(f"{whole.path} holds {len(whole)} image; a bank and a query need two at least.")
        shuffled = order(given.seed, 0, len(whole))
        drawn = [(whole, shuffled[:half]), (whole, shuffled[half : 2 * half])]
    return Subset(*drawn[0]), Subset(*drawn[1])


def _require_same_classes(bank: Dataset, queries: Dataset) -> None:
    if bank.classes != queries.classes:
        other = sorted(set(bank.classes) ^ set(queries.classes))
        raise Problem(
            f"{bank.path} has {len(bank.classes)} classes and {queries.path} {len(queries.classes)} ({', '.join(other[:3])} in "
            "one only): their labels mean different classes. Give both the same class folders, or the same numbers."
        )


def _features(
    given: Neighbouring, model: Ready, dataset: Dataset, pooling: str, after: Callable[[int], object]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    batches = Batches(dataset, model.augmentation, given.batch_size, 0, drop_last=False, shuffle=False)
    return encoded(model.runtime, model.model, batches, pooling, given.workers, after)


def knn_top1(runtime: Runtime, model: Any, batches: Batches, most: int) -> float:
    """Percent of images whose class their neighbours name.

    The data set's images are taken in a drawn order that is the same for every call; the first half, at most `most`
    images, is the bank, and as many after them are classified by it. Features: the patch tokens' mean, unmasked.
    """
    dataset = batches.dataset
    count = min(most, len(dataset) // 2)
    places = Batches(dataset, batches.augmentation, 2 * count, batches.seed).indices(0)
    plain = Batches(
        Subset(dataset, places), batches.augmentation.plain, _AT_ONCE, 0, drop_last=False, shuffle=False,
        skip_broken=batches.skip_broken,
    )  # fmt: skip
    features, labels = encoded(runtime, model, plain)
    return classified(features[:count], labels[:count], features[count:], labels[count:])


def encoded(
    runtime: Runtime,
    model: Any,
    batches: Batches,
    pooling: str = "gap",
    workers: int = 0,
    after: Callable[[int], object] = lambda images: None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features float32 [n, D] and labels [n] of the images of an epoch of batches, in their order."""
    features, labels = [], []
    with batches.loader(0, batches.steps_per_epoch, workers) as loader:
        for _, batch in loader:
            features.append(features_of(runtime, model, batch["imgs"], pooling))
            labels.append(batch["labels"])
            after(len(batch["labels"]))
    return np.concatenate(features), np.concatenate(labels)


def classified(bank: NDArray[Any], labels: NDArray[np.int64], queries: NDArray[Any], truth: NDArray[np.int64]) -> float:
    """Percent of queries [m, D] whose label [m] the neighbours among the bank [n, D], with labels [n], name."""
    return float(100 * np.mean(ranked(bank, labels, queries, truth) == 0))


def ranked(
    bank: NDArray[Any],
    labels: NDArray[np.int64],
    queries: NDArray[Any],
    truth: NDArray[np.int64],
    k: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> NDArray[np.int64]:
    """How many classes have more of the vote than each query's own, int64 [m]; of equal ones the smaller number comes first.

    bank [n, D] with labels [n], queries [m, D] with labels truth [m]. A neighbour votes with exp(cosine / temperature). Of
    neighbours that are equally near, the earlier ones are taken.
    """
    bank, queries = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (bank, queries))
    classes, ranks = int(max(labels.max(), truth.max())) + 1, np.empty(len(queries), np.int64)
    rows = max(1, _SIMILARITIES // len(bank))
    for first in range(0, len(queries), rows):
        similar = queries[first : first + rows] @ bank.T  # [rows, n]
        nearest = _nearest(similar, k)
        votes = np.zeros((len(similar), classes))
        weights = np.exp(np.take_along_axis(similar, nearest, 1) / temperature)
        for place in range(nearest.shape[1]):
            votes[np.arange(len(similar)), labels[nearest[:, place]]] += weights[:, place]
        right = truth[first : first + rows, None]
        own = np.take_along_axis(votes, right, 1)
        ranks[first : first + rows] = ((votes > own) | ((votes == own) & (np.arange(classes) < right))).sum(axis=1)
    return ranks


def _nearest(similar: NDArray[Any], k: int) -> NDArray[np.int64]:
    """The places of the k largest of each row, largest first; of equal ones the earlier. The whole row is not sorted."""
    count = similar.shape[1]
    if k >= count:
        return np.argsort(-similar, axis=1, kind="stable").astype(np.int64)
    least = np.partition(similar, count - k, axis=1)[:, count - k]
    nearest = np.empty((len(similar), k), np.int64)
    for row, (values, limit) in enumerate(zip(similar, least)):
        candidates = np.flatnonzero(values >= limit)
        nearest[row] = candidates[np.argsort(-values[candidates], kind="stable")[:k]]
    return nearest
