"""Classifiers evaluated on real images: every framework's predictions, and the numbers of a plain evaluation with timm.

    .venv/bin/python benchmarks/evaluated.py --out docs/benchmarks/evaluated.md

Two small classifiers are fine-tuned in PyTorch, one on digits and one on photographs, and evaluated with the official transform
in each framework, on images that they have not seen and on some that they have. Exit status 1 where a prediction or a digit of
an accuracy differs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from polymae.backends import FRAMEWORKS
from polymae.compare.record.environment import processor
from polymae.data.dataset import Dataset
from polymae.data.datasets import open_dataset
from polymae.data.known import get
from polymae.training.evaluate import Evaluation, evaluate_part
from polymae.training.finetune import finetune
from polymae.training.measured import Asked

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from plain_evaluation import plain_evaluation

BATCH = 64
COLUMNS = ("framework", "images", "top-1", "top-5", "loss", "predictions that differ from timm's")


@dataclass(frozen=True)
class Case:
    """A classifier and its images. data: of `polymae data get`. sizes: of the model. settings: of small-cpu-finetune."""

    data: str
    about: str
    classes: int
    sizes: dict[str, int]
    settings: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    parts: tuple[str, ...] = ("val", "train")

    @property
    def model(self) -> str:
        """As -m takes it."""
        return ",".join(f"{name}={value}" for name, value in self.sizes.items())


CASES = (
    Case(
        "mnist-10k", "digits, 28 x 28 pixels, from scratch with 10 labels of each", 10,
        {"img_size": 28, "patch_size": 4, "in_chans": 1, "embed_dim": 64, "depth": 4, "num_heads": 4}, (), (0.1307,), (0.3081,),
        ("val",),
    ),
    Case(
        "elpv", "photographs of solar cells, 300 x 300 pixels, seen at 64 x 64; trained on those of `train`", 4,
        {"img_size": 64, "patch_size": 8, "embed_dim": 96, "depth": 4, "num_heads": 4},
        ("labels_per_class=null", "epochs=8", "warmup_epochs=1", "crop=centre", "evaluate_every_epochs=8", "save_every_epochs=8"),
        (0.485, 0.456, 0.406), (0.229, 0.224, 0.225),
    ),
)  # fmt: skip


def main() -> int:
    """Train, evaluate, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frameworks", nargs="+", default=list(FRAMEWORKS), choices=FRAMEWORKS)
    parser.add_argument("--folder", type=Path, default=Path(), help="for the data sets, which stay (default: here)")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    lines = [
        "# Classifiers on real images",
        "",
        f"Written by `benchmarks/evaluated.py`, in batches of {BATCH}: the file of one fine-tuning, evaluated in each framework",
        "and by a plain loop with PyTorch and timm's model. Accuracies in percent, the loss in nats.",
        "",
        f"Machine: {processor()}, one thread.",
    ]
    differs = False
    with tempfile.TemporaryDirectory() as place:
        for case in CASES:
            rows, wrong = _rows(case, args.folder / case.data, Path(place) / case.data, args.frameworks)
            lines += [
                "",
                f"## {case.data}: {case.about}",
                "",
                f"| {' | '.join(COLUMNS)} |",
                f"|{'---|' * len(COLUMNS)}",
                *rows,
            ]
            differs = differs or wrong
    text = "\n".join(lines) + "\n"
    if args.out:
        args.out.write_text(text)
    print(text, end="")
    return int(differs)


def _rows(case: Case, data: Path, place: Path, frameworks: list[str]) -> tuple[list[str], bool]:
    data = get(case.data, data)
    images = (f"mean={[*case.mean]}", f"std={[*case.std]}")
    outcome = finetune("torch", data, place / "run", None, "small-cpu-finetune",
                       (f"model={case.model}", *images, *case.settings), threads=1)  # fmt: skip
    weights = outcome.checkpoint / "weights.safetensors"
    listed = [one for part in case.parts for one in _as_files(open_dataset(data, None, part), place / part)]
    plain = plain_evaluation(weights, listed, BATCH, case.mean, case.std, num_classes=case.classes, **case.sizes)
    place.joinpath("images.csv").write_text(
        "".join(f"{path},{label}\n" for path, label in [("path", "label"), *listed])
    )
    rows, wrong = [_row("PyTorch and timm", len(listed), plain, 0)], False
    for framework in frameworks:
        model = f"{case.model},num_classes={case.classes},pooling=gap"
        asked = Asked(framework, weights, model, mean=case.mean, std=case.std, threads=1)
        part = evaluate_part(Evaluation(asked, place / "images.csv", batch_size=BATCH))
        differ = int((part.scores.predictions != np.array(plain["predictions"])).sum())
        rows.append(_row(framework, len(listed), part.facts(), differ))
        print(rows[-1], file=sys.stderr, flush=True)
        wrong = wrong or differ > 0 or rows[-1].split("|")[2:5] != rows[0].split("|")[2:5]
    return rows, wrong


def _as_files(dataset: Dataset, folder: Path) -> list[tuple[Path, int]]:
    """The images of a data set as PNG files, with their labels."""
    folder.mkdir(parents=True)
    listed = []
    for index in range(len(dataset)):
        path = folder / f"{index}.png"
        Image.fromarray(np.asarray(dataset.image(index))).save(path)
        label = dataset.label(index)
        assert label is not None
        listed.append((path, label))
    return listed


def _row(name: str, images: int, result: dict[str, Any], differ: int) -> str:
    return f"| {name} | {images:,} | {result['top1']:.3f} | {result['top5']:.3f} | {result['loss']:.6f} | {differ} |"


if __name__ == "__main__":
    raise SystemExit(main())
