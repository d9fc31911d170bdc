"""Trainer: it makes the same arguments as the functions, and names what to use in place of what it has not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import refuses
from tiny_run import SETTINGS as PRETRAINING
from tiny_run import STEPS, assert_same_run, tiny_recipe
from tiny_tuning import AUTOENCODER, MODEL, labelled, tiny_tuning

from polymae.backends.initial import initial_weights
from polymae.backends.presets import model_config
from polymae.convert.checkpoint import content_hash, open_checkpoint
from polymae.convert.writing import official_checkpoint
from polymae.files.errors import Problem
from polymae.interfaces import Trainer, ViTMAEForPreTraining, pipeline
from polymae.interfaces.advice import INSTEAD
from polymae.training import checkpoints
from polymae.training.classifying import FineTuning, Probe
from polymae.training.evaluate import evaluate
from polymae.training.finetune import finetune
from polymae.training.pretrain import pretrain
from polymae.training.reading import as_settings, as_yaml, read_recipe

MIM, CLASSES = "masked_image_modeling", "image_classification"
# The tiny runs, as a person gives their settings.
SMALL = {name: value for name, _, value in (text.partition("=") for text in PRETRAINING) if name != "model"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def pretrained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a pre-training of two steps, by a Trainer."""
    out = tmp_path_factory.mktemp("pretrained") / "run"
    settings = [*PRETRAINING, "lr=0.01", "steps=2", "precision=float32"]
    trainer = Trainer(
        task=MIM, model=AUTOENCODER, train_dataset=data, framework="numpy", settings=settings[1:], output_dir=out
    )
    assert trainer.train().step == 2
    return out


def weights_in(run: Path) -> str:
    return open_checkpoint(run / checkpoints.FOLDER / checkpoints.LAST / checkpoints.WEIGHTS).hash


def test_train_is_pretrain(framework: str, data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(as_yaml(tiny_recipe("steps=3")))
    trainer = Trainer(
        task=MIM,
        train_dataset=str(data),
        framework=framework,
        recipe=str(recipe),
        output_dir=tmp_path / "one",
        threads=1,
    )
    outcome = trainer.train()
    pretrain(framework, data, tmp_path / "other", tiny_recipe("steps=3"), threads=1)
    assert outcome.step == 3
    assert_same_run(tmp_path / "one", tmp_path / "other")


def test_settings_are_the_recipes(data: Path, tmp_path: Path) -> None:
    one = Trainer(MIM, "mae_vit_test_p8", settings={**SMALL, "betas": (0.8, 0.9), "lr": None, "seed": 4})
    assert one.recipe == read_recipe("official-base", (
        "model=mae_vit_test_patch8", *PRETRAINING[1:], "betas=[0.8,0.9]", "lr=null", "seed=4",
    ))  # fmt: skip
    assert as_settings({"a": True, "b": None, "c": (1, 2.5), "d": "x"}) == ("a=true", "b=null", "c=[1, 2.5]", "d=x")
    assert as_settings("a=1") == as_settings(["a=1"]) == ("a=1",)
    assert Trainer(MIM).recipe == read_recipe("official-base", ())
    assert Trainer(CLASSES).recipe == read_recipe("finetune-base", (), FineTuning)
    assert Trainer(CLASSES, recipe="linprobe-base").recipe == read_recipe("linprobe-base", (), Probe)
    assert Trainer(MIM, recipe=tiny_recipe()).recipe == tiny_recipe()
    assert Trainer(CLASSES, "vit_base_p16").recipe.model == "vit_base_patch16"


def test_going_on(data: Path, tmp_path: Path) -> None:
    def trainer(out: str, *settings: str, **options: Any) -> Trainer:
        return Trainer(
            MIM, train_dataset=data, framework="numpy", settings=settings, output_dir=tmp_path / out, **options
        )

    trainer("whole", recipe=tiny_recipe()).train()
    trainer("parts", recipe=tiny_recipe("steps=5")).train()
    assert trainer("parts", "steps=null").train(resume=True).step == STEPS
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    with pytest.raises(Problem, match="lr"):  # another rate changes what is computed
        trainer("parts", "lr=0.5").train(resume=True)
    trainer("first", recipe=tiny_recipe("steps=5")).train()
    assert trainer("copy", recipe=tiny_recipe()).train(resume=tmp_path / "first").step == STEPS
    assert_same_run(tmp_path / "whole", tmp_path / "copy")
    with pytest.raises(Problem):
        trainer("parts", recipe=tiny_recipe()).train()  # a run is there


def test_finetune_evaluate_predict(framework: str, data: Path, pretrained: Path, tmp_path: Path) -> None:
    tuner = Trainer(
        CLASSES,
        train_dataset=data,
        framework=framework,
        recipe=tiny_tuning(FineTuning),
        output_dir=tmp_path / "one",
        threads=1,
    )
    outcome = tuner.finetune(pretrained)
    finetune(framework, data, tmp_path / "other", pretrained, tiny_tuning(FineTuning), threads=1)
    assert_same_run(tmp_path / "one", tmp_path / "other")
    result = tuner.evaluate()
    assert (result.n, outcome.score is not None) == (5, True)
    assert result.loss == evaluate(framework, data, tmp_path / "one", threads=1).loss
    assert tuner.evaluate(tmp_path / "one", batch_size=2).n == 5
    predictions = tuner.predict(input_data=data / "val" / "class0", topk=1)
    assert [len(one.top) for one in predictions] == [1, 1]
    assert predictions == pipeline(CLASSES, tmp_path / "one", framework, topk=1)(data / "val" / "class0")


def test_eval_dataset_is_what_a_training_measures_on(data: Path, pretrained: Path, tmp_path: Path) -> None:
    def trainer(**options: Any) -> Trainer:
        recipe = tiny_tuning(FineTuning, "steps=4")
        return Trainer(
            CLASSES,
            train_dataset=data / "train",
            framework="numpy",
            recipe=recipe,
            output_dir=tmp_path / "run",
            **options,
        )

    with pytest.raises(Problem, match="no images to measure on"):
        trainer().finetune(pretrained)
    measured = trainer(eval_dataset=data / "val")
    assert measured.finetune(pretrained).score is not None
    assert measured.evaluate().n == 5


def test_finetune_of_pixels_goes_on_with_the_weights(data: Path, pretrained: Path, tmp_path: Path) -> None:
    settings = [*PRETRAINING[1:], "lr=1e-30", "steps=1", "precision=float32"]
    trainer = Trainer(MIM, AUTOENCODER, data, framework="numpy", settings=settings, output_dir=tmp_path / "run")
    trainer.finetune(pretrained)
    assert weights_in(tmp_path / "run") == weights_in(pretrained)
    scratch = Trainer(MIM, AUTOENCODER, data, framework="numpy", settings=settings, output_dir=tmp_path / "scratch")
    scratch.train()
    assert weights_in(tmp_path / "scratch") == content_hash(initial_weights(model_config(AUTOENCODER), 0))


def test_a_probe_is_a_recipe(data: Path, pretrained: Path, tmp_path: Path) -> None:
    trainer = Trainer(
        CLASSES,
        train_dataset=data,
        framework="numpy",
        recipe=tiny_tuning(Probe, "steps=4"),
        output_dir=tmp_path / "run",
    )
    trainer.finetune(pretrained)
    before = open_checkpoint(pretrained / "checkpoints" / "last" / "weights.safetensors").tensors
    after = open_checkpoint(tmp_path / "run" / "checkpoints" / "last" / "weights.safetensors").tensors
    assert (before["blocks.0.attn.qkv.weight"].load() == after["blocks.0.attn.qkv.weight"].load()).all()
    assert trainer.evaluate().n == 5
    with pytest.raises(Problem):  # a probe of nothing
        Trainer(
            CLASSES, train_dataset=data, framework="numpy", recipe=tiny_tuning(Probe), output_dir=tmp_path / "other"
        ).train()


def test_predict_paints(data: Path, pretrained: Path, tmp_path: Path) -> None:
    trainer = Trainer(MIM, output_dir=pretrained, framework="numpy")
    made = trainer.predict(input_data=data / "val" / "class0", seed=3)
    assert [one.mask.mean() for one in made] == [0.75, 0.75]
    assert [path.name for path in made.save(tmp_path)] == ["00.png", "02.png"]
    saved = ViTMAEForPreTraining.from_pretrained(pretrained, "numpy").save_pretrained(tmp_path / "saved")
    again = trainer.predict(saved, data / "val" / "class0", seed=3)
    assert [one.reconstruction.tobytes() for one in again] == [one.reconstruction.tobytes() for one in made]


def test_sizes_that_a_file_does_not_say_are_those_of_the_model(data: Path, tmp_path: Path) -> None:
    config = model_config(AUTOENCODER)
    official_checkpoint(tmp_path / "plain.pth", config, initial_weights(config, 3))
    made = Trainer(MIM, AUTOENCODER, framework="numpy").predict(tmp_path / "plain.pth", data / "val" / "class0")
    assert len(made) == 2
    with refuses("unknown-model"):
        Trainer(MIM, framework="numpy").predict(tmp_path / "plain.pth", data / "val" / "class0")
    tuned = model_config(f"{MODEL},num_classes=2,pooling=gap")
    official_checkpoint(tmp_path / "tuned.pth", tuned, initial_weights(tuned, 3))
    trainer = Trainer(CLASSES, f"{MODEL},num_classes=2,pooling=gap", framework="numpy", eval_dataset=data / "val")
    assert trainer.evaluate(tmp_path / "tuned.pth").n == 5


@pytest.mark.parametrize("name", [name for name in INSTEAD if not name.startswith("set_")])
def test_an_argument_that_is_not_there_says_what_to_use_instead(name: str) -> None:
    with refuses("bad-argument") as caught:
        Trainer(MIM, **{name: object()})
    assert INSTEAD[name] in str(caught.value)


def test_a_method_that_is_not_there_says_what_to_use_instead() -> None:
    trainer = Trainer(MIM)
    for name in ("set_parallel_config", "set_recompute_config", "set_moe_config", "push_to_hub"):
        with pytest.raises(AttributeError, match="instead"):
            getattr(trainer, name)(data_parallel=8)
    with pytest.raises(AttributeError, match="train, finetune, evaluate and predict"):
        _ = trainer.trian


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda data: Trainer("pretraining"), "masked_image_modeling"),
        (lambda data: Trainer(), "task is missing"),
        (lambda data: Trainer(MIM, trian_dataset=data), "train_dataset"),
        (lambda data: Trainer(MIM, train_dataset=[1]), "a list"),
        (lambda data: Trainer(MIM, model=np.zeros(3)), "save_pretrained"),
        (lambda data: Trainer(MIM, settings={"epochz": 3}), "epochs"),
        (lambda data: Trainer(MIM, settings={"layer_decay": 0.5}), "finetune"),
        (lambda data: Trainer(MIM, recipe="finetune-base"), "finetune"),
        (lambda data: Trainer(CLASSES, recipe=tiny_recipe()), "pretrain"),
        (lambda data: Trainer(MIM, recipe=tiny_recipe(), settings={"epochs": 3}), "complete"),
        (lambda data: Trainer(MIM, "vit_base_p16", data, output_dir="x").train(), "classifier"),
        (lambda data: Trainer(MIM).train(), "train_dataset"),
        (lambda data: Trainer(MIM, train_dataset=data).train(), "output_dir"),
        (lambda data: Trainer(MIM).train(resume=True), "output_dir"),
        (lambda data: Trainer(MIM).train(resume_training=True), "resume=True"),
        (lambda data: Trainer(MIM).finetune(), "begins with a checkpoint"),
        (lambda data: Trainer(MIM).finetune(True), "a path"),
        (lambda data: Trainer(MIM).evaluate(), "knn"),
        (lambda data: Trainer(CLASSES).evaluate(), "eval_dataset"),
        (lambda data: Trainer(CLASSES, eval_dataset=data).evaluate(), "eval_checkpoint"),
        (lambda data: Trainer(MIM).predict(input_data=data), "predict_checkpoint"),
        (lambda data: Trainer(MIM).predict("mae_visualize_vit_base"), "input_data"),
        (lambda data: Trainer(MIM).run(), "args="),
    ],
)
def test_bad_requests(call: Any, said: str, data: Path) -> None:
    with pytest.raises(Problem, match=said):
        call(data)


def test_nothing_is_written_where_nothing_was_asked_for(
    data: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mindformers writes configs, output and checkpoint_download into the working folder."""
    monkeypatch.chdir(tmp_path)
    trainer = Trainer(MIM, framework="numpy", train_dataset=data)
    trainer.predict(pretrained, data / "val" / "class0")
    with pytest.raises(Problem):
        trainer.train()
    assert list(tmp_path.iterdir()) == []
