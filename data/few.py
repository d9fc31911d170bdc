"""Few labels: a part of a data set with so many images of each class, drawn once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..files.errors import Problem
from .dataset import Dataset
from .draws import generator
from .subset import Subset

_PLACE = 1  # of the draw; 0 is that of train and val (known.py)


def labels_of(dataset: Dataset) -> NDArray[np.int64]:
    """The label of every image, int64 [n]. Raises Problem where one has none."""
    labels = [dataset.label(index) for index in range(len(dataset))]
    if None in labels:
        raise Problem(f"{dataset.name(labels.index(None))} of {dataset.path} has no label, and every image needs one.")
    return np.array(labels, np.int64)


def drawn_of_each_class(dataset: Dataset, count: int, seed: int) -> Subset:
    """`count` images of each class that has any, drawn by the seed: the smaller count's are among the larger one's.

    Raises Problem for a class of fewer images.
    """
    labels = labels_of(dataset)
    keys = generator(seed, "split", 0, _PLACE).random(len(labels))
    chosen = []
    for label in np.unique(labels):
        there = np.flatnonzero(labels == label)
        if len(there) < count:
            raise Problem(
                f"labels_per_class is {count}, and {dataset.path} has {len(there)} images of class "
                f"{dataset.classes[label]}; set labels_per_class={len(there)} at most, or null for all images."
            )
        chosen.append(there[np.argsort(keys[there], kind="stable")[:count]])
    return Subset(dataset, np.sort(np.concatenate(chosen)).astype(np.int64))
