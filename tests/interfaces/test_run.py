"""Files in mindformers' layout: what they say is our recipe, and nothing that changes numbers is passed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoints import refuses
from mindformers_files import finetuning, pretraining, written
from PIL import Image
from tiny_run import lines
from tiny_tuning import labelled

from polymae.cli import main
from polymae.files.errors import Problem
from polymae.interfaces import Trainer
from polymae.interfaces.mindformers import read_run
from polymae.training.reading import read_any_recipe
from polymae.training.recipe import values

SMALL: dict[str, Any] = {
    **{f"model__model_config__{name}": value for name, value in {
        "image_size": 16, "patch_size": 4, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 64,
    }.items()},
    "runner_config__image_size": 16, "runner_config__epochs": 2, "runner_config__batch_size": 10,
    "train_dataset__batch_size": 10, "lr_schedule__warmup_epochs": 1,
}  # fmt: skip
DECODER = {f"model__model_config__decoder_{name}": value for name, value in {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
}.items()}  # fmt: skip
MASKED = {"train_dataset__mask_policy__input_size": 16, "train_dataset__mask_policy__patch_size": 4}


def small_pretraining(path: Path, data: Path, **changes: Any) -> Path:
    tree = pretraining()
    tree["train_dataset"]["transforms"][0]["size"] = 16
    here = {"train_dataset__data_loader__dataset_dir": str(data), "output_dir": str(path.parent / "out")}
    return written(path, tree, **{**SMALL, **DECODER, **MASKED, **here, **changes})


def small_finetuning(path: Path, data: Path, **changes: Any) -> Path:
    tree = finetuning()
    tree["train_dataset"]["transforms"][1]["size"] = 16
    here = {
        "train_dataset__data_loader__dataset_dir": str(data / "train"), "output_dir": str(path.parent / "out"),
        "eval_dataset__data_loader__dataset_dir": str(data / "val"), "runner_config__num_classes": 2,
        "model__model_config__num_labels": 2,
    }  # fmt: skip
    return written(path, tree, **{**SMALL, **here, **changes})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled(tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize(
    ("tree", "recipe", "differing"),
    [
        (
            pretraining(),
            "mindformers-as-written",
            {
                "images.mean": (0.485, 0.465, 0.406), "images.std": (0.229, 0.244, 0.225), "computing.precision": "float32",
                "checkpoints.save_every_steps": 100,
            },
        ),
        (
            finetuning(),
            "mindformers-finetune",
            {
                "images.mean": (0.485, 0.456, 0.406), "images.std": (0.229, 0.224, 0.225), "computing.precision": "float32",
                "checkpoints.save_every_steps": 100, "num_classes": 1000, "batch.batch_size": 32,
                "evaluation.evaluate_every_epochs": None, "evaluation.evaluation_batch": 32, "evaluation.crop_ratio": 0.875,
            },
        ),
    ],
    ids=["pretraining", "finetuning"],
)  # fmt: skip
def test_a_file_is_the_recipe_of_its_name(tree: Any, recipe: str, differing: dict[str, Any], tmp_path: Path) -> None:
    run = read_run(written(tmp_path / "run.yaml", tree))
    found, known = values(read_any_recipe(run.recipe)), values(read_any_recipe(recipe))
    assert {name: found[name] for name in found if found[name] != known[name]} == {
        **differing, "about": found["about"], "reaches": "",
    }  # fmt: skip
    assert (run.mode, run.train_data, run.checkpoint, run.output_dir) == (
        "train",
        "imageNet-1k/train",
        None,
        "./output",
    )
    assert run.task == ("masked_image_modeling" if "mask_policy" in tree["train_dataset"] else "image_classification")


def test_every_key_is_taken_or_named(tmp_path: Path) -> None:
    """A key more, at any place, is a problem: none is passed over because it is not known."""
    for tree in (pretraining(), finetuning()):
        for place in (
            "",
            "train_dataset__",
            "model__model_config__",
            "runner_config__",
            "optimizer__",
            "lr_schedule__",
        ):
            path = written(tmp_path / "run.yaml", tree, **{f"{place}planted": 1})
            with refuses("bad-argument", "planted: it is not known here"):
                read_run(path)
        named = " ".join(read_run(written(tmp_path / "run.yaml", tree)).notices)
        for key in (
            "context",
            "callbacks",
            "scale_sense",
            "initializer_range",
            "train_dataset.seed",
            "processor",
            "sink_mode",
        ):
            assert key in named, key


@pytest.mark.parametrize(
    ("changes", "setting", "value"),
    [
        ({"lr_scale": False}, "optimizer.lr", 1.5e-4),
        ({"lr_scale_factor": 512}, "optimizer.blr", 0.75e-4),
        ({"optimizer__eps": "1e-6"}, "optimizer.eps", 1e-6),
        ({"optimizer__beta1": ..., "optimizer__beta2": ..., "optimizer__betas": [0.8, 0.9]}, "optimizer.betas", (0.8, 0.9)),
        ({"seed": 7}, "seed", 7),
        ({"runner_config__epochs": ..., "runner_config__epoch": 33}, "schedule.epochs", 33),
        ({"lr_schedule__lr_end": 1e-5}, "schedule.min_lr", 1e-5),
        ({"lr_schedule__learning_rate": ..., "lr_schedule__base_lr": 3e-4}, "optimizer.blr", 3e-4),
        ({"runner_wrapper__use_clip_grad": True}, "optimizer.clip_grad", 1.0),
        ({"model__model_config__norm_pix_loss": False}, "norm_pix_loss", False),
        (
            {"model__model_config__mask_ratio": 0.6, "train_dataset__mask_policy__mask_ratio": 0.6}, "mask_ratio", 0.6,
        ),
        ({"train_dataset__transforms": [{"type": "HWC2CHW"}]}, "images.flip", 0.0),
        (
            {"train_dataset__transforms": [{"type": "Normalize", "mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]}]},
            "images.mean", (0.1, 0.2, 0.3),
        ),
        (
            {"model__model_config__hidden_size": 1024, "model__model_config__intermediate_size": 4096,
             "model__model_config__num_hidden_layers": 24, "model__model_config__num_attention_heads": 16},
            "model", "mae_vit_large_patch16",
        ),
    ],
)  # fmt: skip
def test_settings(changes: dict[str, Any], setting: str, value: Any, tmp_path: Path) -> None:
    run = read_run(written(tmp_path / "run.yaml", pretraining(), **changes))
    assert values(read_any_recipe(run.recipe))[setting] == pytest.approx(value)


@pytest.mark.parametrize(
    ("changes", "setting", "value"),
    [
        ({"layer_scale": False}, "optimizer.layer_decay", 1.0),
        ({"layer_decay": 0.75}, "optimizer.layer_decay", 0.75),
        ({"train_dataset__mixup_op": ...}, "mixing.smoothing", 0.0),
        ({"train_dataset__mixup_op__cutmix_alpha": 0.5}, "mixing.cutmix", 0.5),
        ({"train_dataset__mixup_op__cutmix_minmax": [0.2, 0.8]}, "mixing.cutmix_minmax", (0.2, 0.8)),
        ({"model__model_config__use_mean_pooling": False}, "pooling", "cls"),
        ({"model__model_config__drop_path_rate": 0.2}, "drop_path", 0.2),
        ({"do_eval": True}, "evaluation.evaluate_every_epochs", 1),
        ({"train_dataset__transforms": [{"type": "ToTensor"}]}, "images.erase", 0.0),
        ({"train_dataset__transforms": [{"type": "ToTensor"}]}, "images.auto_augment", None),
    ],
)
def test_settings_of_finetuning(changes: dict[str, Any], setting: str, value: Any, tmp_path: Path) -> None:
    run = read_run(written(tmp_path / "run.yaml", finetuning(), **changes))
    assert values(read_any_recipe(run.recipe))[setting] == value


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"use_parallel": True}, "use_parallel"),
        ({"moe_config__expert_num": 8}, "expert_num"),
        ({"model__model_config__hidden_dropout_prob": 0.1}, "hidden_dropout_prob"),
        ({"model__model_config__init_values": 0.1}, "init_values"),
        ({"model__model_config__window_size": 14}, "window_size"),
        ({"model__model_config__hidden_act": "relu"}, "hidden_act"),
        ({"model__model_config__decoder_intermediate_size": 1024}, "decoder_intermediate_size"),
        ({"model__model_config__num_attention_heads": 7}, "num_heads"),
        ({"model__model_config__drop_path_rate": 0.1}, "drop_path_rate"),
        ({"train_dataset__mask_policy__mask_ratio": 0.5}, "mask_ratio"),
        ({"train_dataset__mask_policy__patch_size": 14}, "patch_size"),
        ({"runner_config__image_size": 256}, "image_size"),
        ({"train_dataset__batch_size": 128}, "batch_size"),
        ({"train_dataset__data_loader__type": "Cifar10"}, "data_loader.type"),
        ({"train_dataset__repeat": 2}, "repeat"),
        ({"optimizer__type": "Momentum"}, "optimizer.type"),
        ({"lr_schedule__type": "polynomial"}, "lr_schedule.type"),
        ({"lr_schedule__warmup_steps": 100}, "warmup_steps"),
        ({"lr_schedule__learning_rate": "fast"}, "a number"),
        ({"layer_scale": True}, "layer_scale"),
        ({"load_checkpoint": "x.ckpt"}, "finetune"),
        ({"train_dataset__transforms": [{"type": "RandomSharpness"}]}, "RandomSharpness"),
        ({"train_dataset__transforms": [{"type": "RandomHorizontalFlip", "p": 1}]}, "has p 1"),
        ({"train_dataset__transforms": [{"type": "RandomResizedCrop", "size": 96}]}, "size is 96"),
        ({"train_dataset__transforms": [{"type": "RandomResizedCrop", "interpolation": "area"}]}, "area"),
    ],
)
def test_what_would_change_numbers_is_refused(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    with refuses("bad-argument", named):
        read_run(written(tmp_path / "run.yaml", pretraining(), **changes))


def test_all_of_it_is_said_at_once(tmp_path: Path) -> None:
    changes = {"use_parallel": True, "planted": 1, "layer_scale": True, "optimizer__type": "lamb"}
    with refuses("bad-argument") as caught:
        read_run(written(tmp_path / "run.yaml", pretraining(), **changes))
    assert all(name in str(caught.value) for name in ("use_parallel", "planted", "layer_scale", "lamb"))
    evaluated = finetuning()
    evaluated["eval_dataset"]["transforms"][1]["size"] = [256, 256]
    evaluated["eval_dataset"]["transforms"][4] = {"type": "Normalize", "mean": [0.5] * 3, "std": [0.5] * 3}
    with refuses("bad-argument", "CenterCrop") as caught:
        read_run(written(tmp_path / "run.yaml", evaluated))
    assert "mean" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (None, "no-such-file"),
        ("a: [", "cannot-read"),
        ("model: vit_base_patch16\n", "bad-argument"),
        ("trainer: {type: text_generation}\n", "bad-argument"),
        ("trainer: {type: mim}\nrun_mode: export\n", "bad-argument"),
        ("trainer: {type: mim, model_name: vit_base_p16}\n", "bad-argument"),
        ("[1, 2]\n", "bad-argument"),
    ],
)
def test_files_that_are_none(text: str | None, code: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "run.yaml").write_text(text)
    with refuses(code):
        read_run(tmp_path / "run.yaml")


def test_the_modes(framework: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """train, predict, finetune, eval by the command, on what the one before wrote."""
    config = small_pretraining(tmp_path / "mae.yaml", data)
    common = ["--framework", framework, "--threads", "1"]
    assert main(["run", str(config), *common, "--set", "steps=2", "workers=0"]) == 0
    assert len(lines(tmp_path / "out")) == 2
    told = capsys.readouterr()
    assert "initializer_range" in told.err
    assert told.out.startswith("2 steps")
    photos = str(data / "val" / "class0")
    predict = ["--run_mode", "predict", "--load_checkpoint", str(tmp_path / "out"), "--predict_data", photos]
    assert main(["run", str(config), *common, *predict, "--output_dir", str(tmp_path / "painted"), "--json"]) == 0
    pictures = [json.loads(line)["picture"] for line in capsys.readouterr().out.splitlines()]
    assert pictures == [str(tmp_path / "painted" / name) for name in ("00.png", "02.png")]
    assert Image.open(pictures[0]).size == (7 * 4 * 18 - 7 * 2, 7 * 16)

    config = small_finetuning(tmp_path / "vit.yaml", data, output_dir=str(tmp_path / "tuned"))
    tune = ["--run_mode", "finetune", "--load_checkpoint", str(tmp_path / "out"), "--set", "steps=2", "workers=0"]
    assert main(["run", str(config), *common, *tune, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 2
    measure = ["--run_mode", "eval", "--load_checkpoint", str(tmp_path / "tuned"), "--json"]
    assert main(["run", str(config), *common, *measure]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 5
    classify = [
        "--run_mode",
        "predict",
        "--load_checkpoint",
        str(tmp_path / "tuned"),
        "--predict_data",
        photos,
        "--json",
    ]
    assert main(["run", str(config), *common, *classify]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["image"] for one in found] == [f"{photos}/00.png", f"{photos}/02.png"]
    assert len(found[0]["top"]) == 2


def test_bad_commands(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = small_pretraining(tmp_path / "mae.yaml", data)
    for words, said in (
        (["--run_mode", "finetune"], "begins with a checkpoint"),
        (["--run_mode", "eval", "--load_checkpoint", "x"], "knn"),
        (["--run_mode", "predict", "--load_checkpoint", str(tmp_path)], "input_data"),
        (["--set", "epochz=3"], "epochs"),
        (["--run_mode", "train", "--load_checkpoint", "x"], "finetune"),
    ):
        assert main(["run", str(config), "--framework", "numpy", *words]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_broken_image_is_named_by_the_command(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = small_pretraining(tmp_path / "mae.yaml", data)
    assert main(["run", str(config), "--framework", "numpy", "--set", "steps=1", "workers=0"]) == 0
    (tmp_path / "broken.png").write_bytes(b"no image")
    words = [
        "--run_mode",
        "predict",
        "--load_checkpoint",
        str(tmp_path / "out"),
        "--predict_data",
        str(tmp_path / "broken.png"),
    ]
    assert main(["run", str(config), "--framework", "numpy", *words]) == 1
    assert "broken.png" in capsys.readouterr().err


def test_a_trainer_takes_the_file(data: Path, tmp_path: Path) -> None:
    trainer = Trainer(
        args=small_pretraining(tmp_path / "mae.yaml", data), framework="numpy", settings={"steps": 1, "workers": 0}
    )
    assert (trainer.task, trainer.train_dataset, trainer.output_dir) == (
        "masked_image_modeling",
        data,
        tmp_path / "out",
    )
    assert trainer.run().step == 1
    goes_on = small_pretraining(tmp_path / "on.yaml", data, resume_training=True)
    assert Trainer(args=goes_on, framework="numpy", settings={"steps": 2, "workers": 0}).run().step == 2
    other = Trainer(
        args=goes_on, framework="numpy", train_dataset="elsewhere", output_dir="there", settings=["epochs=9"]
    )
    assert (str(other.train_dataset), str(other.output_dir), other.recipe.schedule.epochs) == ("elsewhere", "there", 9)
    with pytest.raises(Problem):
        trainer.run("export")
