"""The scores of an evaluation, or of a part of it, as a file: parts of several processes or machines are put together."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..files.atomic import replacing
from ..files.errors import Problem
from .scores import Result, Scores

_MAY_DIFFER = ("device",)  # between machines; what is computed decides whether the numbers are of one evaluation


@dataclass(frozen=True)
class Part:
    """Scores of some or all images. about: the model, the data and how it was computed, as Evaluation's parts agree on."""

    scores: Scores
    about: dict[str, Any]

    @property
    def whole(self) -> bool:
        """Whether every image of the data set is in it."""
        return bool(len(self.scores.places) == self.about["images"])

    def result(self, official_loss: bool = False) -> Result:
        """What the scores come to, of all images. Raises Problem where some are missing."""
        if not self.whole:
            there = len(self.scores.places)
            raise Problem(
                f"There are scores of {there} of the data set's {self.about['images']} images; give the files of all parts."
            )
        batch_size = self.about["batch_size"] if official_loss else None
        return self.scores.result(self.about["classes"], self.about["names"], batch_size)

    def facts(self, official_loss: bool = False) -> dict[str, Any]:
        """The result as JSON, with what it depends on."""
        about = {name: value for name, value in self.about.items() if name not in ("names", "images", "class_map")}
        return {**self.result(official_loss).facts(), **about, "class_map": self.about["class_map"] is not None}

    def save(self, path: Path) -> None:
        """Write an .npz file, complete or not at all. Raises OSError."""
        about = np.frombuffer(json.dumps(self.about).encode(), np.uint8)
        with replacing(path) as new, new.open("wb") as file:
            np.savez(file, about=about, **asdict(self.scores))


def read_part(path: Path) -> Part:
    """A part that was saved. Raises Problem for a file that is none."""
    try:
        with np.load(path, allow_pickle=False) as file:
            scores = Scores(*(file[name] for name in Scores.__dataclass_fields__))
            about = json.loads(file["about"].tobytes())
        return Part(scores, about)
    except FileNotFoundError:
        raise Problem(f"There is no file {path} of scores.", code="no-such-file") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as problem:
        raise Problem(
            f"{path} holds no scores of an evaluation ({problem}); `polymae evaluate --part 1/2 --scores FILE.npz` writes some.",
            code="cannot-read",
        ) from None


def joined(parts: Sequence[Part], names: Sequence[str] = ()) -> Part:
    """Parts of one evaluation as one. names: what each is called in messages.

    Raises Problem for parts of other models, data or ways of computing, or for one that is there twice.
    """
    first, *others = parts
    called = [*names] or [f"part {number + 1}" for number in range(len(parts))]
    for name, other in zip(called[1:], others):
        differ = [
            f"{key} {_short(first.about[key])} and {_short(other.about.get(key))}"
            for key in first.about
            if key not in _MAY_DIFFER and other.about.get(key) != first.about[key]
        ]
        if differ:
            raise Problem(
                f"{called[0]} and {name} are not parts of one evaluation: {'; '.join(differ)}. Run the parts with the same "
                "weights, data and batch size."
            )
    return Part(Scores.joined([part.scores for part in parts]), first.about)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
