"""Predictions and features of images: the same in every framework, in files that are complete or not there."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_classifier import AUTOENCODER, CLASSES, MODEL, autoencoder, classifier, images

from polymae.cli import main
from polymae.cli.convert_weights import main as convert
from polymae.data.datasets import open_dataset
from polymae.files.errors import Problem
from polymae.training.evaluate import Evaluation, evaluate_part
from polymae.training.given import found_images
from polymae.training.measured import Asked
from polymae.training.predict import Prediction, likeliest, predict


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predicted")
    images(folder / "photos", count=2)
    classifier(folder / "tuned.pth")
    autoencoder(folder / "mae.pth")
    (folder / "names.txt").write_text("\n".join(CLASSES))
    return folder


@pytest.fixture(scope="module")
def exact(there: Path) -> list[Prediction]:
    """By NumPy, in float64."""
    return predict("numpy", there / "photos", there / "tuned.pth", model=MODEL, dtype="float64", features=True)


def test_every_framework_predicts_the_same(framework: str, there: Path, exact: list[Prediction]) -> None:
    made = predict(
        framework,
        there / "photos",
        there / "tuned.pth",
        model=MODEL,
        features=True,
        batch_size=4,
        names=str(there / "names.txt"),
    )
    assert [one.image for one in made] == [one.image for one in exact] == found_images([str(there / "photos")])
    for one, other in zip(made, exact):
        assert [top.number for top in one.top] == [top.number for top in other.top]
        assert [top.name for top in one.top] == [CLASSES[top.number] for top in other.top]
        assert [top.probability for top in one.top] == pytest.approx([top.probability for top in other.top], rel=1e-4)
        assert one.features is not None
        assert other.features is not None
        assert one.features.dtype == np.float32
        assert np.allclose(one.features, other.features, atol=1e-4)


def test_predictions_are_what_evaluate_counts(there: Path, exact: list[Prediction]) -> None:
    part = evaluate_part(Evaluation(Asked("numpy", there / "tuned.pth", MODEL, dtype="float64"), there / "photos"))
    dataset = open_dataset(there / "photos")
    assert [one.image for one in exact] == [f"{there}/photos/{dataset.name(place)}" for place in range(len(dataset))]
    assert [one.top[0].number for one in exact] == part.scores.predictions.tolist()
    assert len({one.top[0].number for one in exact}) > 2


def test_features_of_an_autoencoder(framework: str, there: Path) -> None:
    found = {}
    for pooling in ("gap", "cls"):
        made = predict(
            framework, there / "photos" / "ant", there / "mae.pth", model=AUTOENCODER, features=True, pooling=pooling
        )
        assert [one.top for one in made] == [(), ()]
        found[pooling] = np.stack([one.features for one in made if one.features is not None])
    exact = predict(
        "numpy", there / "photos" / "ant", there / "mae.pth", model=AUTOENCODER, features=True, dtype="float64"
    )
    assert np.allclose(found["gap"], np.stack([one.features for one in exact if one.features is not None]), atol=1e-4)
    assert not np.allclose(found["gap"], found["cls"], atol=1e-2)
    # An encoder without its decoder has the same features.
    encoder = there / "encoder.pth"
    assert (
        convert(["torch", "-c", str(there / "mae.pth"), "-m", AUTOENCODER, "--encoder-only", "-o", str(encoder)]) == 0
    )
    made = predict(framework, there / "photos" / "ant", encoder, model=AUTOENCODER, features=True)
    assert np.allclose(np.stack([one.features for one in made if one.features is not None]), found["gap"], atol=1e-6)


def test_files_folders_and_patterns(there: Path) -> None:
    photos = there / "photos"
    assert found_images([str(photos / "cat")]) == [f"{photos}/cat/0.png", f"{photos}/cat/1.png"]
    assert found_images([f"{photos}/*/1.png"]) == [f"{photos}/{name}/1.png" for name in CLASSES]
    assert len(found_images([str(photos), f"{photos}/**/*.png", f"{photos}/ant/0.png"])) == 2 * len(CLASSES)
    for text, said in ((f"{photos}/*.gif", "matches no file"), ("gone.png", "is not there")):
        with pytest.raises(Problem, match=said):
            found_images([f"{photos}/ant/0.png", text])


def test_names_that_a_checkpoint_brings_along(there: Path, tmp_path: Path) -> None:
    model = MODEL.replace("gap", "cls")
    path = classifier(tmp_path / "tuned.pth", model)
    assert convert(["huggingface", "-c", str(path), "-m", model, "-o", str(tmp_path / "vit")]) == 0
    config = json.loads((tmp_path / "vit" / "config.json").read_text())
    assert [top.name for top in predict("numpy", there / "photos" / "ant", tmp_path / "vit")[0].top] == [""] * 5
    config["id2label"] = {str(number): name for number, name in enumerate(CLASSES)}
    (tmp_path / "vit" / "config.json").write_text(json.dumps(config))
    (first, _) = predict("numpy", there / "photos" / "ant", tmp_path / "vit")
    assert [top.name for top in first.top] == [CLASSES[top.number] for top in first.top]


def test_the_likeliest_by_hand() -> None:
    top = likeliest(np.array([1.0, 3.0, 3.0, 0.0]), 3, "abcd")
    assert [(one.number, one.name) for one in top] == [(1, "b"), (2, "c"), (0, "a")]
    total = np.exp([1, 3, 3, 0]).sum()
    assert [one.probability for one in top] == pytest.approx([np.exp(3) / total, np.exp(3) / total, np.e / total])
    assert likeliest(np.array([1e4, 0.0]), 1)[0].probability == 1.0


def command(there: Path, *words: str | Path, weights: str = "tuned.pth", model: str = MODEL) -> int:
    return main(["predict", "--framework", "numpy", "--weights", str(there / weights), "-m", model, *map(str, words)])


def test_the_command(there: Path, tmp_path: Path, exact: list[Prediction], capsys: pytest.CaptureFixture[str]) -> None:
    from pyarrow import parquet

    for name in ("f.npy", "f.parquet"):
        status = command(
            there,
            there / "photos",
            "--json",
            "--topk",
            "2",
            "--features",
            tmp_path / name,
            "--out",
            tmp_path / "o.jsonl",
        )
        assert status == 0
        told = capsys.readouterr().out
        assert told == (tmp_path / "o.jsonl").read_text()
        lines = [json.loads(line) for line in told.splitlines()]
        assert [[top["class"] for top in line["top"]] for line in lines] == [
            [top.number for top in one.top[:2]] for one in exact
        ]
    features = np.load(tmp_path / "f.npy")
    assert (features.shape, features.dtype) == ((len(exact), 48), np.float32)
    table = parquet.read_table(tmp_path / "f.parquet")
    assert table.column("image").to_pylist() == [one.image for one in exact]
    assert np.array_equal(np.array(table.column("features").to_pylist(), np.float32), features)
    assert command(there, there / "photos" / "ant" / "0.png", "--names", there / "names.txt") == 0
    top = exact[0].top[0]
    assert f"{100 * top.probability:6.2f} %  {top.number:>4}  {CLASSES[top.number]}" in capsys.readouterr().out


def test_broken_images_are_named_and_the_others_are_done(
    there: Path, tmp_path: Path, exact: list[Prediction], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(there / "photos", tmp_path / "photos")
    (tmp_path / "photos" / "bee" / "0.png").write_bytes(b"no image")
    assert command(there, tmp_path / "photos", "--json", "--features", tmp_path / "f.npy", "--batch-size", "3") == 1
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [("problem" in line) for line in lines] == [place == 2 for place in range(len(exact))]
    assert "broken: " in err
    assert "photos/bee/0.png is not a whole image" in err
    assert "1 of 14 images could not be decoded." in err
    found = np.stack([one.features for place, one in enumerate(exact) if place != 2 and one.features is not None])
    assert np.allclose(np.load(tmp_path / "f.npy"), found, atol=1e-4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["photos", "--features", "f.csv"], "ends in .npy or .parquet, not to f.csv"),
        (["photos", "--pooling", "cls"], "The pooling cls is for autoencoders"),
        (["nothing/"], "nothing/ is not there"),
        (["photos", "--names", "gone.txt"], "Cannot read gone.txt"),
    ],
)
def test_wrong_options_leave_no_file(
    there: Path, words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(there)
    before = sorted(there.iterdir())
    assert command(there, *words, "--out", "o.jsonl") == 2
    assert said in capsys.readouterr().err
    assert sorted(there.iterdir()) == before


def test_an_autoencoder_names_no_classes(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(there, there / "photos", weights="mae.pth", model=AUTOENCODER) == 2
    assert "holds no head that names classes" in capsys.readouterr().err


def test_parquet_without_pyarrow_names_the_extra(there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from polymae.training.features import require_writable

    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(Problem, match=r"pip install 'polymae\[parquet\]'"):
        require_writable(tmp_path / "f.parquet")
    require_writable(tmp_path / "f.npy")


def test_an_interrupted_prediction_leaves_the_old_file(
    there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polymae.training import features

    (tmp_path / "o.jsonl").write_text("old")
    monkeypatch.setattr(features.np, "save", lambda *args, **more: (_ for _ in ()).throw(KeyboardInterrupt))
    status = command(there, there / "photos", "--features", tmp_path / "f.npy", "--out", tmp_path / "o.jsonl")
    assert status == 130
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("o.jsonl", "old")]
