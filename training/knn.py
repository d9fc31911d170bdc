"""Nearest neighbours by an encoder's features: how well they tell classes apart, without any training.

Source: the weighted kNN classifier of Wu et al. 2018 (arXiv 1805.01978, section 3.4), as DINO evaluates it: cosine
similarity, exp(similarity / 0.07) as weight.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.runtime import Runtime
from ..data.batches import Batches

NEIGHBOURS, TEMPERATURE = 20, 0.07
_AT_ONCE = 64  # images


def knn_top1(runtime: Runtime, model: Any, batches: Batches, most: int) -> float:
    """Percent of images whose class their neighbours name.

    The data set's images are taken in a drawn order that is the same for every call; the first half, at most `most`
    images, is the bank, and as many after them are classified by it. Features: the patch tokens' mean, unmasked.
    """
    dataset = batches.dataset
    count = min(most, len(dataset) // 2)
    order = Batches(dataset, batches.augmentation, 2 * count, batches.seed).indices(0)
    plain = Batches(dataset, batches.augmentation.plain, 1, 0, shuffle=False)
    features, labels = encoded(runtime, model, plain, order)
    return classified(features[:count], labels[:count], features[count:], labels[count:])


def encoded(
    runtime: Runtime, model: Any, batches: Batches, order: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Features [n, D] and labels [n] of the images at these places of a data set in its order."""
    features, labels = [], []
    for first in range(0, len(order), _AT_ONCE):
        parts = [batches.batch(int(index)) for index in order[first : first + _AT_ONCE]]
        imgs = np.concatenate([part["imgs"] for part in parts])
        labels += [part["labels"] for part in parts]
        with runtime.no_grad():
            tokens = model.encode(runtime.tensors(model, {"imgs": imgs})["imgs"], "gap")
        features.append(runtime.to_numpy(tokens).astype(np.float32))
    return np.concatenate(features), np.concatenate(labels)


def classified(bank: NDArray[Any], labels: NDArray[np.int64], queries: NDArray[Any], truth: NDArray[np.int64]) -> float:
    """Percent of queries [m, D] whose label [m] the neighbours among the bank [n, D], with labels [n], name."""
    bank, queries = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (bank, queries))
    similar = queries @ bank.T  # [m, n]
    nearest = np.argsort(-similar, axis=1, kind="stable")[:, :NEIGHBOURS]
    votes = np.zeros((len(queries), int(labels.max()) + 1))
    weights = np.exp(np.take_along_axis(similar, nearest, 1) / TEMPERATURE)
    for place in range(nearest.shape[1]):
        votes[np.arange(len(queries)), labels[nearest[:, place]]] += weights[:, place]
    return float(100 * np.mean(votes.argmax(axis=1) == truth))
