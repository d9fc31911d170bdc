"""Classes and features of images by a trained model, in any framework: files, folders and patterns, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.config import ViTConfig
from ..backends.spec import NoTaps
from ..files.errors import Problem
from .classes import read_names
from .given import Images, images_of, made_of
from .measured import Asked, Ready, as_paths, asked_of, ready, require_pooling

TOPK = 5


@dataclass(frozen=True)
class Class:
    """One of a prediction's likeliest classes. name: "" where nothing names it."""

    number: int
    probability: float
    name: str = ""


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes, or the features, of an image. image: its path as it was given, or below the folder that was.

    top: its likeliest classes, first the likeliest; empty for an autoencoder. features: float32 [D], where they were asked
    for. problem: why it could not be decoded, and then it has nothing else; "" else.
    """

    image: str
    top: tuple[Class, ...] = ()
    features: NDArray[np.float32] | None = None
    problem: str = ""

    def facts(self) -> dict[str, Any]:
        """As JSON, without features."""
        if self.problem:
            return {"image": self.image, "problem": self.problem}
        top = [{"class": one.number, "name": one.name, "probability": one.probability} for one in self.top]
        return {"image": self.image, "top": top}


@dataclass(frozen=True)
class Predicting:
    """A prediction to be made.

    asked: the model, to be loaded or loaded. images: files, folders (every image in them, at any depth), patterns, and images
    in memory (given.py). topk: likeliest classes. names: a file of the model's class names. features: whether they are
    wanted. pooling: of an autoencoder's features, gap or cls.
    """

    asked: Asked | Ready
    images: Any
    topk: int = TOPK
    names: Path | None = None
    features: bool = False
    pooling: str | None = None
    batch_size: int = 64
    workers: int = 2


def predict(framework: str, images: Any, weights: str | Path, **options: Any) -> list[Prediction]:
    """Predictions of images; the command `polymae predict` as a function.

    options: those of Asked and Predicting. Raises Problem for anything that a person can mend; an image that cannot be
    decoded is none of these: its prediction says what is wrong with it.
    """
    asked = asked_of(framework, weights, options)
    as_paths(options, "names")
    return list(predictions(Predicting(asked, images, **options))[1])


def predictions(predicting: Predicting) -> tuple[int, Iterator[Prediction]]:
    """How many images there are, and the prediction of each in order, made as they are asked for. Raises as predict."""
    images = images_of(predicting.images)
    model = ready(predicting.asked)
    pooling = require_pooling(predicting.pooling, model.config)
    classifies = isinstance(model.config, ViTConfig) and not model.headless
    if not classifies and not predicting.features:
        raise Problem(
            f"{model.origin} holds no head that names classes (it is {model.name}); ask for features "
            "(--features FILE.npy, features=True), or give a fine-tuned classifier's file."
        )
    names = model.names
    if predicting.names is not None:
        if not isinstance(model.config, ViTConfig):
            raise Problem("An autoencoder has no classes that could have names; leave --names (names=) out.")
        names = read_names(predicting.names, model.config.num_classes)
    return len(images), _made(predicting, model, images, pooling, names, classifies)


def _made(
    predicting: Predicting, model: Ready, images: Images, pooling: str, names: Sequence[str], classifies: bool
) -> Iterator[Prediction]:
    def made(imgs: NDArray[np.float32], places: list[int]) -> Iterator[Prediction]:
        results = _of_batch(predicting, model, imgs, pooling, names, classifies)
        for place, (top, features) in zip(places, results):
            yield Prediction(images.name(place), top, features)

    def broken(name: str, problem: str) -> Prediction:
        return Prediction(name, problem=problem)

    return made_of(images, model.augmentation, predicting.batch_size, predicting.workers, made, broken)


def _of_batch(
    predicting: Predicting,
    model: Ready,
    imgs: NDArray[np.float32],
    pooling: str,
    names: Sequence[str],
    classifies: bool,
) -> Iterator[tuple[tuple[Class, ...], NDArray[np.float32] | None]]:
    """Of each image its likeliest classes, and its features where they are wanted."""
    features: NDArray[np.float32] | None = None
    tops: list[tuple[Class, ...]] = [()] * len(imgs)
    if classifies:
        logits, features = logits_and_features(model, imgs)
        tops = [likeliest(row, predicting.topk, names) for row in logits]
    else:
        features = model.features(imgs, pooling)
    for number, top in enumerate(tops):
        yield top, features[number] if predicting.features else None


class _Latent(NoTaps):
    """A tap dictionary that keeps the pooled features only."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name == "latent":
            dict.__setitem__(self, name, value)


def logits_and_features(model: Ready, imgs: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Logits [N, classes] and pooled features float32 [N, D] of images [N, C, height, width], in one run."""
    out, runtime = _Latent(), model.runtime
    with runtime.no_grad():
        logits = runtime.to_numpy(model.model(runtime.tensors(model.model, {"imgs": imgs})["imgs"], out))
        return logits, runtime.to_numpy(out["latent"]).astype(np.float32)


def likeliest(logits: NDArray[Any], topk: int, names: Sequence[str] = ()) -> tuple[Class, ...]:
    """The likeliest classes by logits [classes], with their probabilities (softmax in float64); of equal ones the first."""
    exact = np.asarray(logits, np.float64)
    shares = np.exp(exact - exact.max())
    shares /= shares.sum()
    order = np.argsort(-exact, kind="stable")[:topk]
    return tuple(Class(int(number), float(shares[number]), names[number] if names else "") for number in order)
