"""The level inputs: image files on their way to the model, and the arrays that the model got."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.config import Config
from ...backends.spec import Tap
from ...data.images import demo_photographs, evaluation_pixels, normalise
from ...files.errors import Problem
from .choices import input_names
from .subject import Named, Subject


def taps(config: Config, given: Collection[str] = ()) -> Iterator[Tap]:
    """The preprocessed images, where the model takes three channels, and the model's inputs. given: those that the run has."""
    yield from preprocessing_taps(config)
    for name in input_names(config, given):
        yield Tap(f"input/{name}", "copy", exact=True)


def record(subject: Subject) -> Iterator[Named]:
    """The preprocessed images; the model's inputs are in every trace (`given`)."""
    return preprocessed(subject.run.images, subject.config, subject.run.dtype)


def received(subject: Subject) -> Iterator[Named]:
    """The model's inputs as the framework holds them, back in NumPy and in their first type."""
    runtime = subject.runtime
    for name, array in subject.inputs.items():
        yield f"input/{name}", runtime.to_numpy(runtime.from_numpy(array, subject.model)).astype(array.dtype)


def preprocessing_taps(config: Config) -> Iterator[Tap]:
    """What `preprocessed` records: nothing for a model that does not take three channels."""
    if config.in_chans == 3:
        yield Tap("preprocessed/pixels", "decode and resize", exact=True)  # [N, height, width, 3] uint8
        yield Tap("preprocessed/imgs", "normalise")  # [N, 3, height, width]


def preprocessed(images: Sequence[Path], config: Config, dtype: str = "float32") -> Iterator[tuple[str, NDArray[Any]]]:
    """Image files before and after normalisation, by tap name; without images the photographs of the demo.

    dtype: "float64" normalises in float64 throughout, every other in float32. Raises Problem for a file that is no image.
    """
    if config.in_chans != 3:
        return
    pixels = np.stack([evaluation_pixels(path, config.img_size) for path in images or demo_photographs()])
    yield "preprocessed/pixels", pixels
    yield "preprocessed/imgs", normalise(pixels, "float64" if dtype == "float64" else "float32")


def image_digests(images: Sequence[Path], config: Config) -> list[str] | None:
    """SHA-256 of the bytes of every file that `preprocessed` reads, in its order; None where it reads none.

    Raises Problem for a file that cannot be read.
    """
    if config.in_chans != 3:
        return None
    try:
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in images or demo_photographs()]
    except OSError as problem:
        raise Problem(f"Cannot read {problem.filename} ({problem.strerror}); give JPEG or PNG files.") from None
