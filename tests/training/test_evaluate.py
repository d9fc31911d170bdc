"""Evaluation: the numbers of a plain one in torch and timm; the same in every framework, batch size and number of parts."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_classifier
from made_images import picture
from plain_evaluation import plain_evaluation
from tiny_classifier import CLASSES, COUNT, MODEL, SIZES, autoencoder, classifier, images
from untested import require

from polymae.cli import main
from polymae.data.datasets import open_dataset
from polymae.files.errors import Problem
from polymae.training import evaluate as evaluation
from polymae.training.evaluate import Evaluation, evaluate, evaluate_part
from polymae.training.measured import Asked
from polymae.training.parts import joined, read_part
from polymae.training.scores import Result, Scores

TOTAL = len(CLASSES) * COUNT


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_classifier.evaluated(tmp_path_factory.mktemp("evaluated"))


def evaluated(there: Path, framework: str = "numpy", **options: Any) -> Result:
    return evaluate(framework, there / "data", there / "tuned.pth", model=MODEL, **options)


@pytest.fixture(scope="module")
def exact(there: Path) -> Result:
    """By NumPy, in float64."""
    return evaluated(there, dtype="float64")


def test_the_predictions_are_spread(exact: Result) -> None:
    assert len(np.flatnonzero(exact.confusion.sum(axis=0))) >= 4
    assert 0 < exact.top1 < exact.top5 < 100


def test_every_framework_predicts_the_same(framework: str, there: Path, exact: Result) -> None:
    result = evaluated(there, framework)
    assert np.array_equal(result.confusion, exact.confusion)
    assert (result.top1, result.top5, result.n) == (exact.top1, exact.top5, TOTAL)
    assert result.loss == pytest.approx(exact.loss, rel=1e-5)
    assert result.per_class == exact.per_class


def test_the_same_digits_as_torch_and_timm(there: Path) -> None:
    require("torch")
    folders = sorted((there / "data" / "val").iterdir())
    listed = [(path, label) for label, folder in enumerate(folders) for path in sorted(folder.iterdir())]
    sizes = {name: int(value) for name, value in (setting.split("=") for setting in SIZES.split(","))}
    plain = plain_evaluation(there / "tuned.pth", listed, 16, num_classes=len(CLASSES), **sizes)
    result = evaluated(there, "torch", batch_size=16, official_loss=True)
    assert (result.top1, result.top5) == pytest.approx((plain["top1"], plain["top5"]), rel=1e-6)
    assert f"{result.top1:.3f} {result.top5:.3f}" == f"{plain['top1']:.3f} {plain['top5']:.3f}"
    assert result.loss == pytest.approx(plain["loss"], rel=1e-6)
    assert result.official_loss == pytest.approx(plain["official"], rel=1e-6)
    # The two averages differ here by more than they are compared to.
    assert abs(plain["official"] - plain["loss"]) > 1e-3 * plain["loss"]


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_the_batch_size_changes_nothing(there: Path, exact: Result, batch_size: int) -> None:
    result = evaluated(there, batch_size=batch_size, dtype="float64")
    assert result.facts() == {**exact.facts(), "loss": result.loss}
    assert result.loss == pytest.approx(exact.loss, rel=1e-13)


def test_only_the_official_loss_depends_on_the_batch_size(there: Path, exact: Result) -> None:
    losses = {size: evaluated(there, batch_size=size, official_loss=True).official_loss or 0 for size in (7, 16, TOTAL)}
    assert losses[7] == pytest.approx(exact.loss)  # no batch is smaller than the others
    assert losses[TOTAL] == pytest.approx(exact.loss)
    assert abs(losses[16] - exact.loss) > 1e-3 * exact.loss


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("count", [2, 3, 11])
def test_parts_give_the_numbers_of_one_process(
    there: Path, tmp_path: Path, framework: str, count: int, workers: int
) -> None:
    def part(number: int, count: int) -> Evaluation:
        asked = Asked(framework, there / "tuned.pth", MODEL)
        return Evaluation(asked, there / "data", batch_size=5, workers=workers, part=(number, count))

    whole = evaluate_part(part(0, 1))
    paths = [tmp_path / f"{number}.npz" for number in range(count)]
    for number, path in reversed([*enumerate(paths)]):
        evaluate_part(part(number, count)).save(path)
    together = joined([read_part(path) for path in reversed(paths)])
    assert together.facts(True) == whole.facts(True)
    assert np.array_equal(together.scores.losses, whole.scores.losses)
    assert np.array_equal(together.scores.places, np.arange(TOTAL))
    last = read_part(paths[-1])
    with pytest.raises(Problem, match=rf"more than one part \({len(last.scores.places)} images are\)"):
        joined([last, *map(read_part, paths)])
    with pytest.raises(Problem, match="of the data set's 42 images; give the files of all parts"):
        joined([read_part(path) for path in paths[:-1]]).result()


def test_parts_of_other_weights_are_refused(there: Path, tmp_path: Path) -> None:
    classifier(tmp_path / "other.pth", seed=5)
    one, other = (
        evaluate_part(Evaluation(Asked("numpy", path, MODEL), there / "data", part=(number, 2), batch_size=21))
        for number, path in enumerate((there / "tuned.pth", tmp_path / "other.pth"))
    )
    with pytest.raises(Problem, match="not parts of one evaluation: weights_hash"):
        joined([one, other])


# Faults that evaluations have, planted: what the tests above compare must differ.
def _shifted(places: Any, labels: Any, logits: Any, columns: Any = None) -> Scores:
    return Scores.of(places, labels, np.roll(logits, 1, axis=1), columns)


def _mean_of_batches(self: Scores, classes: int, names: Any = (), batch_size: Any = None) -> Result:
    correct = (self.predictions == self.labels).astype(float)
    means = [part.mean() for part in np.split(correct, range(16, len(correct), 16))]
    confusion = np.zeros((classes, classes), np.int64)
    confusion[0, 0], confusion[0, 1] = round(1e6 * np.mean(means)), 1e6 - round(1e6 * np.mean(means))
    return Result(confusion, confusion.sum(axis=1), self._of_batches(16))


@pytest.mark.parametrize(
    "fault", ["one class shifted", "last partial batch dropped", "mean of batches", "best of ties"]
)
def test_a_planted_fault_is_seen(there: Path, exact: Result, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault == "one class shifted":
        monkeypatch.setattr(evaluation, "Scores", type("Shifted", (), {"of": _shifted, "joined": Scores.joined}))
    elif fault == "last partial batch dropped":
        monkeypatch.setattr(evaluation.Batches, "steps_per_epoch", property(lambda self: TOTAL // self.batch_size))
    elif fault == "mean of batches":
        monkeypatch.setattr(Scores, "result", _mean_of_batches)
    else:  # every label that has as large a logit as the largest counts as right
        logits = np.zeros((3, 4))
        assert Scores.of(np.arange(3), np.arange(3), logits).ranks.tolist() == [0, 1, 2]
        return
    if fault == "last partial batch dropped":
        with pytest.raises(Problem, match="scores of 32 of the data set's 42 images"):
            evaluated(there, batch_size=16)
        return
    result = evaluated(there, batch_size=16)
    if fault == "one class shifted":
        assert not np.array_equal(result.confusion, exact.confusion)
        assert result.loss != pytest.approx(exact.loss, rel=1e-5)
    else:
        assert f"{result.top1:.3f}" != f"{exact.top1:.3f}"


def test_scores_by_hand() -> None:
    logits = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 3.0], [1.0, 1.0, 1.0]])
    scores = Scores.of(np.array([4, 5, 6]), np.array([1, 2, 0]), logits)
    assert scores.ranks.tolist() == [1, 1, 0]
    assert scores.predictions.tolist() == [0, 1, 0]
    assert scores.losses[0] == pytest.approx(math.log(math.e**2 + math.e + 1) - 1)
    result = scores.result(3, ("a", "b", "c"), batch_size=2)
    assert (result.n, result.top5) == (3, 100)
    assert result.top1 == pytest.approx(100 / 3)
    assert result.confusion.tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert result.per_class[1] == {"class": 1, "name": "b", "n": 1, "top1": 0.0, "top5": 100.0}
    assert result.official_loss == pytest.approx((scores.losses[:2].mean() + scores.losses[2]) / 2)
    with pytest.raises(Problem, match="place 5 has the label 3"):
        Scores.of(np.array([4, 5, 6]), np.array([1, 3, 0]), logits)
    with pytest.raises(Problem, match="place 6 are not finite"):
        Scores.of(np.array([4, 5, 6]), np.array([1, 2, 0]), logits * [[1], [1], [np.nan]])


def test_a_class_map_tells_only_its_classes_apart(there: Path, tmp_path: Path, exact: Result) -> None:
    few = ("fox", "bee", "dog")
    data = images(tmp_path / "few", few)
    options: dict[str, Any] = {"model": MODEL, "dtype": "float64"}
    with pytest.raises(Problem, match=r"has 3 classes \(bee, dog, fox, ...\), fewer than the model's 7.*--class-map"):
        evaluate("numpy", data, there / "tuned.pth", **options)
    (tmp_path / "map.txt").write_text("# animals\nbee,1\nfox 5\ndog 3\ncat 2\n")
    (tmp_path / "map.json").write_text(json.dumps({"bee": 1, "fox": 5, "dog": 3}))
    (tmp_path / "all.txt").write_text("\n".join(CLASSES))
    results = [
        evaluate("numpy", data, there / "tuned.pth", class_map=str(tmp_path / name), **options)
        for name in ("map.txt", "map.json", "all.txt")
    ]
    assert results[0].facts() == results[1].facts() == results[2].facts()
    (result,) = results[:1]
    assert result.n == 3 * COUNT
    assert set(np.flatnonzero(result.confusion.sum(axis=0))) <= {1, 3, 5}
    assert [one["class"] for one in result.per_class] == [1, 3, 5]
    # By hand: the logits of these classes alone.
    part = evaluate_part(
        Evaluation(Asked("numpy", there / "tuned.pth", **options), data, class_map=tmp_path / "map.txt")
    )
    ready = evaluation.ready(Asked("numpy", there / "tuned.pth", **options))
    imgs = np.stack([ready.augmentation(open_dataset(data).image(place), 0, 0, 0) for place in range(result.n)])
    logits = evaluation.logits_of(ready.runtime, ready.model, imgs)[:, [1, 3, 5]]
    assert part.scores.predictions.tolist() == np.array([1, 3, 5])[logits.argmax(axis=1)].tolist()
    for text, said in (
        ("bee 1\nfox 5\n", "not dog of"), ("bee 1\nfox 5\ndog 7\n", "dog to 7; the model's 7 classes"),
        ("bee 1\nbee 2\nfox 1\ndog 3", "bee more than once"), ("bee\nfox\n", "holds 2 lines, one of them 'bee'"),
    ):  # fmt: skip
        (tmp_path / "wrong.txt").write_text(text)
        with pytest.raises(Problem, match=said):
            evaluate("numpy", data, there / "tuned.pth", class_map=tmp_path / "wrong.txt", **options)


def test_what_cannot_be_evaluated_is_said(there: Path, tmp_path: Path) -> None:
    with pytest.raises(Problem, match="has no labels, and evaluation needs them"):
        evaluate("numpy", images(tmp_path / "flat") / "ant", there / "tuned.pth", model=MODEL)
    with pytest.raises(Problem, match=r"has 9 classes .* more than the model's 7"):
        evaluate("numpy", images(tmp_path / "nine", (*CLASSES, "x", "y"), 1), there / "tuned.pth", model=MODEL)
    with pytest.raises(Problem, match="an autoencoder's, which names no classes"):
        evaluate(
            "numpy",
            there / "data",
            autoencoder(tmp_path / "mae.pth"),
            model=f"{SIZES},decoder_embed_dim=32,decoder_depth=1,decoder_num_heads=4",
        )
    (images(tmp_path / "broken", count=2) / "cat" / "1.png").write_bytes(b"no image")
    with pytest.raises(Problem, match=r"^cat/1.png is not a whole image"):
        evaluate("numpy", tmp_path / "broken", there / "tuned.pth", model=MODEL)
    with pytest.raises(Problem, match="has no part val"):
        evaluate("numpy", images(tmp_path / "parts" / "train").parent, there / "tuned.pth", model=MODEL)
    assert evaluate("numpy", tmp_path / "parts", there / "tuned.pth", model=MODEL, split="train").n == TOTAL


def test_lists_and_arrays_are_evaluated(there: Path, tmp_path: Path, exact: Result) -> None:
    dataset = open_dataset(there / "data", split="val")
    lines = [f"{there}/data/val/{dataset.name(place)},{dataset.label(place)}" for place in range(TOTAL)]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    assert (
        evaluate("numpy", tmp_path / "list.csv", there / "tuned.pth", model=MODEL, dtype="float64").facts()[
            "confusion"
        ]["counts"]
        == (exact.facts()["confusion"]["counts"])
    )
    # Fewer numbers than classes are the model's numbers all the same.
    np.savez(tmp_path / "grey.npz", imgs=np.stack([np.asarray(picture(0, 32, 32))] * 4), labels=[0, 1, 2, 1])
    result = evaluate("numpy", tmp_path / "grey.npz", there / "tuned.pth", model=MODEL)
    assert [one["n"] for one in result.per_class] == [1, 2, 1]


def command(there: Path, *more: str | Path, data: bool = True) -> int:
    given = (
        ["--framework", "numpy", "--weights", there / "tuned.pth", "-m", MODEL, "--data", there / "data"]
        if data
        else []
    )
    return main(["evaluate", *map(str, given), *map(str, more)])


def test_the_command(there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], exact: Result) -> None:
    from PIL import Image

    assert (
        command(
            there,
            "--json",
            "--out",
            tmp_path / "result.json",
            "--confusion",
            tmp_path / "matrix.png",
            "--official-loss",
        )
        == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert {name: told[name] for name in ("top1", "top5", "n")} == {"top1": exact.top1, "top5": exact.top5, "n": TOTAL}
    assert told == json.loads((tmp_path / "result.json").read_text())
    assert told["confusion"]["classes"] == list(CLASSES)
    assert told["official_loss"] == pytest.approx(told["loss"])
    assert [one["name"] for one in told["per_class"]] == list(CLASSES)
    with Image.open(tmp_path / "matrix.png") as image:
        assert (image.format, min(image.size) > 300) == ("PNG", True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["matrix.png", "result.json"]
    for number in (1, 2):
        assert command(there, "--part", f"{number}/2", "--scores", tmp_path / f"{number}.npz") == 0
    assert "0 of 42 images" in capsys.readouterr().out  # one batch
    assert command(there, "--merge", tmp_path / "1.npz", tmp_path / "2.npz", data=False) == 0
    assert f"top-1 {exact.top1:.3f}  top-5 {exact.top5:.3f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--confusion", "m.svg"], "written as .png only"),
        (["--part", "1/2"], "give --scores FILE.npz"),
        (["--part", "1/2", "--scores", "s.npz", "--out", "o.json"], "with --merge, once every part is done"),
        (["--merge", "s.npz"], "leave out --framework, --weights, --data"),
        (["--names", "three.txt"], "names 3 classes, and the model has 7"),
        (["--class-map", "gone.txt"], "Cannot read gone.txt"),
        (["--mean", "0.5"], "must hold a number for each of 3 channels"),
        (["--dtype", "float8"], "not 'float8'"),
    ],
)
def test_wrong_options_leave_no_file(
    there: Path,
    tmp_path: Path,
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("three.txt").write_text("a\nb\nc\n")
    assert command(there, *words) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["three.txt"]


def test_files_that_are_no_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.npz").write_text("no")
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    for name, said in (
        ("gone.npz", "There is no file"),
        ("text.npz", "holds no scores"),
        ("other.npz", "holds no scores"),
    ):
        assert main(["evaluate", "--merge", str(tmp_path / name)]) == 2
        assert said in capsys.readouterr().err


def test_an_interrupted_write_leaves_the_old_file(there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from polymae.training import parts

    (tmp_path / "scores.npz").write_text("old")
    monkeypatch.setattr(parts.np, "savez", lambda *args, **more: (_ for _ in ()).throw(KeyboardInterrupt))
    assert command(there, "--scores", tmp_path / "scores.npz") == 130
    assert [path.name for path in tmp_path.iterdir()] == ["scores.npz"]
    assert (tmp_path / "scores.npz").read_text() == "old"
