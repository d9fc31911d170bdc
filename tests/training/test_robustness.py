"""Sets of the layout of ImageNet-C, -A, -R and -Sketch, and lists of any subset: their numbers, from the images' own logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_classifier import CLASSES, COUNT, MODEL, classifier, images

from polymae.data.augment import Augmentation
from polymae.data.datasets import open_dataset
from polymae.files.errors import Problem
from polymae.training.evaluate import evaluate, logits_of
from polymae.training.measured import Asked, Ready, ready

CORRUPTIONS = ("fog", "gaussian_noise", "snow")
FEW = ("gnu", "bee", "eel")  # as ImageNet-A has 200 of the classes


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sets, a file of the classes in the model's order, and tuned.pth."""
    folder = tmp_path_factory.mktemp("robust")
    classifier(folder / "tuned.pth")
    (folder / "wnids.txt").write_text("\n".join(CLASSES))
    for number, corruption in enumerate(CORRUPTIONS):
        for severity in range(1, 6):
            images(folder / "imagenet-c" / corruption / str(severity), count=2, first=100 * (5 * number + severity))
    images(folder / "imagenet-a", FEW, first=2000)
    images(folder / "imagenet-sketch", first=3000)
    return folder


@pytest.fixture(scope="module")
def model(there: Path) -> Ready:
    return ready(Asked("numpy", there / "tuned.pth", MODEL))


def logits(model: Ready, folder: Path) -> tuple[NDArray[np.float64], list[str]]:
    """Of every image in a folder, one by one, and the name of each one's class."""
    paths = sorted(folder.rglob("*.png"))
    dataset = open_dataset(folder, "tree")
    assert [dataset.name(place) for place in range(len(dataset))] == [str(path.relative_to(folder)) for path in paths]
    prepare: Augmentation = model.augmentation
    each = [prepare(dataset.image(place), 0, 0, 0)[None] for place in range(len(dataset))]
    found = [logits_of(model.runtime, model.model, imgs)[0] for imgs in each]
    return np.array(found, np.float64), [path.parent.name for path in paths]


def top1(found: NDArray[np.float64], names: list[str], classes: tuple[str, ...] = CLASSES) -> float:
    """Percent, where these classes alone are told apart."""
    chosen = [CLASSES.index(name) for name in classes]
    right = [classes[place] == name for place, name in zip(found[:, chosen].argmax(axis=1), names)]
    return 100 * sum(right) / len(right)


def test_every_corruption_and_severity_is_a_set(there: Path, model: Ready) -> None:
    """As docs/evaluation.md says: errors averaged over severities, then over corruptions."""
    errors = {}
    for corruption in sorted((there / "imagenet-c").iterdir()):
        each = [
            100 - evaluate("numpy", severity, there / "tuned.pth", model=MODEL).top1
            for severity in sorted(corruption.iterdir())
        ]
        assert len(each) == 5
        errors[corruption.name] = sum(each) / len(each)
        assert errors[corruption.name] == pytest.approx(100 - top1(*logits(model, corruption)))
    assert tuple(errors) == CORRUPTIONS
    assert len(set(errors.values())) > 1
    whole = 100 - top1(*logits(model, there / "imagenet-c"))
    assert sum(errors.values()) / len(errors) == pytest.approx(whole)


def test_a_set_of_some_classes_tells_these_apart_alone(there: Path, model: Ready) -> None:
    found, names = logits(model, there / "imagenet-a")
    result = evaluate("numpy", there / "imagenet-a", there / "tuned.pth", model=MODEL, class_map=there / "wnids.txt")
    assert (result.n, result.top1) == (len(FEW) * COUNT, pytest.approx(top1(found, names, tuple(sorted(FEW)))))
    assert result.top1 != pytest.approx(top1(found, names))  # other classes would be taken for some
    assert {one["class"] for one in result.per_class} == {CLASSES.index(name) for name in FEW}
    with pytest.raises(Problem, match="--class-map FILE"):
        evaluate("numpy", there / "imagenet-a", there / "tuned.pth", model=MODEL)


def test_a_set_of_all_classes_needs_no_map(there: Path, model: Ready) -> None:
    result = evaluate("numpy", there / "imagenet-sketch", there / "tuned.pth", model=MODEL)
    assert result.top1 == pytest.approx(top1(*logits(model, there / "imagenet-sketch")))


def test_a_list_names_any_subset(there: Path, model: Ready, tmp_path: Path) -> None:
    found, names = logits(model, there / "imagenet-sketch")
    paths = sorted((there / "imagenet-sketch").rglob("*.png"))
    places = [3, 8, 21, 40, 41]
    by_number = [f"{paths[place]},{CLASSES.index(names[place])}" for place in places]
    (tmp_path / "numbers.csv").write_text("\n".join(by_number))
    result = evaluate("numpy", tmp_path / "numbers.csv", there / "tuned.pth", model=MODEL)
    chosen = [names[place] for place in places]
    assert (result.n, result.top1) == (5, pytest.approx(top1(found[places], chosen)))
    (tmp_path / "names.csv").write_text("\n".join(f"{paths[place]},{names[place]}" for place in places))
    named = evaluate("numpy", tmp_path / "names.csv", there / "tuned.pth", model=MODEL, class_map=there / "wnids.txt")
    assert named.top1 == pytest.approx(top1(found[places], chosen, tuple(sorted(set(chosen)))))
    assert named.n == 5
