"""Nearest neighbours by frozen features: the vote by hand, the bank and the queries, every framework, runs and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_classifier import AUTOENCODER, CLASSES, MODEL, autoencoder, classifier, images
from tiny_run import tiny_data, tiny_recipe

from polymae.backends.runtime import load_backend
from polymae.cli import main
from polymae.data.batches import Batches
from polymae.data.datasets import open_dataset
from polymae.files.errors import Problem
from polymae.training.knn import Neighbouring, Neighbours, bank_and_queries, knn, knn_top1, ranked
from polymae.training.measured import Asked, ready
from polymae.training.pretrain import Request, run_request


def naive(bank: Any, labels: Any, queries: Any, k: int, temperature: float, classes: int) -> list[list[float]]:
    """The vote of Wu et al. 2018, a neighbour at a time."""
    found = []
    for query in queries:
        near = [
            (-float(query @ one / np.linalg.norm(query) / np.linalg.norm(one)), place) for place, one in enumerate(bank)
        ]
        votes = [0.0] * classes
        for distance, place in sorted(near)[:k]:
            votes[labels[place]] += np.exp(-distance / temperature)
        found.append(votes)
    return found


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (20, 0.07), (200, 1.0), (50, 0.5)])
def test_the_vote_by_hand(k: int, temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(k)
    bank, queries = rng.standard_normal((200, 6)), rng.standard_normal((40, 6))
    labels, truth = rng.integers(0, 5, 200), rng.integers(0, 5, 40)
    ranks = ranked(bank, labels, queries, truth, k, temperature)
    votes = naive(bank, labels, queries, k, temperature, 5)
    assert ranks.tolist() == [
        sum(v > row[right] or (v == row[right] and place < right) for place, v in enumerate(row))
        for row, right in zip(votes, truth)
    ]
    assert 0 < np.mean(ranks == 0) < 1
    monkeypatch.setattr("polymae.training.knn._SIMILARITIES", 600)  # three queries at a time
    assert np.array_equal(ranked(bank, labels, queries, truth, k, temperature), ranks)
    assert not np.array_equal(ranked(bank, labels, queries, (truth + 1) % 5, k, temperature), ranks)


def test_of_equally_near_ones_the_earlier_vote() -> None:
    bank = np.ones((6, 3))
    assert ranked(bank, np.array([2, 2, 1, 1, 1, 0]), np.ones((1, 3)), np.array([2]), 2).tolist() == [0]
    # A class that the bank does not have gets no vote.
    assert ranked(bank, np.array([2, 2, 1, 1, 1, 0]), np.ones((1, 3)), np.array([3]), 6).tolist() == [3]


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with parts/train, parts/val, tuned.pth and mae.pth."""
    folder = tmp_path_factory.mktemp("neighbours")
    images(folder / "parts" / "train", count=4)
    images(folder / "parts" / "val", count=2, first=500)
    classifier(folder / "tuned.pth")
    autoencoder(folder / "mae.pth")
    return folder


def measured(there: Path, framework: str = "numpy", data: str = "parts", **options: Any) -> Neighbours:
    return knn(framework, there / data, there / "mae.pth", model=AUTOENCODER, **{"k": 5, **options})


def test_every_framework_measures_the_same(framework: str, there: Path) -> None:
    exact = measured(there, dtype="float64")
    assert (exact.bank, exact.queries) == (4 * len(CLASSES), 2 * len(CLASSES))
    for batch_size, workers in ((64, 0), (5, 2)):
        result = measured(there, framework, batch_size=batch_size, workers=workers)
        assert (result.top1, result.top5) == (exact.top1, exact.top5)


def test_an_image_of_the_bank_finds_itself(there: Path, tmp_path: Path) -> None:
    (tmp_path / "train").symlink_to(there / "parts" / "train")
    (tmp_path / "val").symlink_to(there / "parts" / "train")
    result = knn("numpy", tmp_path, there / "tuned.pth", model=MODEL, k=1)
    assert (result.top1, result.n if hasattr(result, "n") else result.queries) == (100, 4 * len(CLASSES))


def test_bank_and_queries_are_drawn_and_apart(there: Path) -> None:
    def drawn(data: str, **options: Any) -> tuple[list[str], list[str]]:
        given = Neighbouring(Asked("numpy", there / "mae.pth"), there / data, **options)
        bank, queries = ([part.name(place) for place in range(len(part))] for part in bank_and_queries(given))
        return bank, queries

    bank, queries = drawn("parts/train")
    assert len(bank) == len(queries) == 2 * len(CLASSES)
    assert not set(bank) & set(queries)
    assert drawn("parts/train") == (bank, queries) != drawn("parts/train", seed=1)
    bank, queries = drawn("parts", images=3)
    assert (len(bank), len(queries)) == (3, 3)


def test_what_cannot_be_measured_is_said(there: Path, tmp_path: Path) -> None:
    with pytest.raises(Problem, match="k is 29, and the bank holds 28 images"):
        measured(there, k=29)
    with pytest.raises(Problem, match="temperature is 0"):
        measured(there, temperature=0)
    with pytest.raises(Problem, match="labels"):
        measured(there, data="parts/train/ant")
    with pytest.raises(Problem, match="The pooling cls is for autoencoders"):
        knn("numpy", there / "parts", there / "tuned.pth", model=MODEL, pooling="cls", k=5)
    (tmp_path / "train").symlink_to(there / "parts" / "train")
    images(tmp_path / "val", CLASSES[:3])
    with pytest.raises(Problem, match="their labels mean different classes"):
        knn("numpy", tmp_path, there / "mae.pth", model=AUTOENCODER, k=5)


def test_a_run_is_measured_as_its_log_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = tiny_data(tmp_path / "images"), tmp_path / "run"
    run_request(
        Request("numpy", data, out, tiny_recipe("knn_every_epochs=3", "mean=[0.4,0.5,0.6]", "std=[0.3,0.2,0.1]"))
    )
    logged = json.loads((out / "log.txt").read_text().splitlines()[-1])["knn_top1"]
    words = [
        "knn",
        "--framework",
        "numpy",
        "--data",
        str(data),
        "--weights",
        str(out),
        "--json",
        "--out",
        str(tmp_path / "k.json"),
    ]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((tmp_path / "k.json").read_text())
    assert (told["top1"], told["bank"], told["n"], told["k"]) == (logged, 20, 20, 20)
    # Its images are prepared as in the run, and what the run's log says is what its weights give.
    asked = ready(Asked("numpy", out))
    assert asked.augmentation == tiny_recipe("mean=[0.4,0.5,0.6]", "std=[0.3,0.2,0.1]").augmentation.plain
    batches = Batches(open_dataset(data), asked.augmentation, 10, 0)
    assert knn_top1(load_backend("numpy"), asked.model, batches, 2000) == logged
