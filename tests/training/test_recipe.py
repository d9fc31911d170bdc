"""Recipes: named ones, files, single settings, and what differs between two."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from polymae.backends.config import ConfigError
from polymae.data.mixing import Mixing
from polymae.files.errors import Problem
from polymae.training.classifying import Classifying, FineTuning, Probe
from polymae.training.reading import KINDS, as_yaml, named, read_any_recipe, read_recipe, recipe_of
from polymae.training.recipe import Recipe, differences, leaves, values

# design.md section 8: names that --set takes whatever else changes (those of fine-tuning come with it).
PROMISED = {
    "seed", "epochs", "steps", "batch_size", "accumulate", "workers", "model", "input_size", "lr", "blr", "weight_decay",
    "warmup_epochs", "mask_ratio", "norm_pix_loss", "save_every_steps",
}  # fmt: skip


def test_every_setting_has_a_name_of_its_own() -> None:
    names = [dotted.rpartition(".")[2] for dotted, _ in leaves()]
    assert len(set(names)) == len(names)
    assert set(names) >= PROMISED
    assert all(leaf.metadata["about"] for _, leaf in leaves())


@pytest.mark.parametrize("name", named())
def test_a_named_recipe_is_whole_and_says_its_source(name: str) -> None:
    recipe = read_any_recipe(name)
    about = {dotted: getattr(recipe, dotted) for dotted in ("about", "reaches")}
    assert all(about.values())
    if isinstance(recipe, Recipe):
        config, augmentation = recipe.config, recipe.augmentation
    else:
        assert isinstance(recipe, Classifying)
        config = recipe.config_of(10)
        augmentation = recipe.augmentation_of(config)
        assert recipe.evaluation_of(config).size == config.img_size
    assert config.num_patches
    assert augmentation.size == config.img_size
    for comments in (False, True):
        assert read_any_recipe(yaml.safe_load(as_yaml(recipe, comments))) == recipe
    assert name in named(type(recipe))
    assert type(recipe).usual in named(type(recipe))


@pytest.mark.parametrize("kind", KINDS.values())
def test_settings_of_every_task(kind: type[Recipe]) -> None:
    names = [dotted.rpartition(".")[2] for dotted, _ in leaves(kind)]
    assert len(set(names)) == len(names)
    assert all(leaf.metadata["about"] for _, leaf in leaves(kind))
    assert recipe_of({}, "nothing", kind) == kind()
    if kind is not Recipe:
        assert set(names) >= PROMISED - {"mask_ratio", "norm_pix_loss"}
    if kind.task == "finetune":
        assert set(names) >= {"drop_path", "mixup", "cutmix", "layer_decay", "smoothing", "ema"}


def test_a_recipe_of_another_task_is_refused() -> None:
    with pytest.raises(Problem, match="finetune-base is a recipe of finetune, and pretrain was asked for"):
        read_recipe("finetune-base")
    with pytest.raises(Problem, match="small-cpu is a recipe of pretrain, and linprobe was asked for"):
        read_recipe("small-cpu", kind=Probe)
    with pytest.raises(Problem, match="it is one of pretrain, and this recipe is of finetune"):
        read_recipe("finetune-base", ["mask_ratio=0.5"], FineTuning)
    with pytest.raises(Problem, match="task is 'sleep'; it must be one of pretrain, finetune, linprobe"):
        read_any_recipe({"task": "sleep"})
    one, other = read_any_recipe("small-cpu"), read_any_recipe("small-cpu-finetune")
    assert differences(one, other)["task"] == ("pretrain", "finetune")


def test_official_numbers_of_classifiers() -> None:
    """facebookresearch/mae FINETUNE.md and the scripts' defaults."""
    tuned = read_recipe("finetune-base", kind=FineTuning)
    assert tuned.lr == pytest.approx(2e-3)
    assert (tuned.schedule.epochs, tuned.schedule.warmup_epochs, tuned.schedule.min_lr) == (100, 5, 1e-6)
    settings = tuned.settings
    assert (settings.betas, settings.weight_decay, settings.layer_decay) == ((0.9, 0.999), 0.05, 0.65)
    assert settings.spare_tokens
    config = tuned.config_of(1000)
    assert (config.pooling, config.num_classes, config.train_positions) == ("gap", 1000, True)
    probe = read_recipe("linprobe-base", kind=Probe)
    assert probe.lr == pytest.approx(6.4)
    assert probe.settings.kind == "lars"
    assert probe.settings.weight_decay == 0
    head = probe.config_of(1000)
    assert (head.pooling, head.head_norm, head.train_encoder) == ("cls", True, False)


def test_official_numbers() -> None:
    recipe = read_recipe("official-base")
    assert recipe.lr == pytest.approx(2.4e-3)
    assert recipe.settings.betas == (0.9, 0.95)
    schedule = recipe.schedule_of(312)
    assert schedule.rate(0) == 0
    assert schedule.rate(40 * 312) == recipe.lr
    assert schedule.rate(420 * 312) == pytest.approx(recipe.lr / 2)
    assert recipe.config.norm_pix_loss


def test_schedules_counted_from_the_start() -> None:
    """LiBai's, as it was run upstream: 6 steps of which 2 warm up, to a rate of 2.4e-3."""
    schedule = read_recipe("libai", ["epochs=6", "warmup_epochs=2"]).schedule_of(1)
    assert [schedule.rate(step) for step in range(6)] == pytest.approx(
        [0, 1.2e-3, 1.2e-3, 3.51e-4, 0, 3.51e-4], abs=1e-6
    )
    flyegle = read_recipe("flyegle").schedule_of(1)
    assert flyegle.rate(360) == pytest.approx(0)
    assert flyegle.rate(399) > flyegle.rate(361) > 0  # it rises again
    as_written = read_recipe("mindformers-as-written").schedule_of(100)
    assert as_written.rate(999) == pytest.approx(as_written.lr / 4, rel=1e-2)


def test_known_mistakes_are_settings_of_the_recipes_that_have_them() -> None:
    flyegle = read_recipe("flyegle")
    assert (flyegle.settings.decayed, flyegle.lr, flyegle.batch.batch_size) == ("all", 1.2e-3, 2048)
    assert flyegle.mixing == Mixing(0, 0.0, cutmix=1.0)
    assert (flyegle.augmentation.scale, flyegle.augmentation.auto_augment) == ((0.08, 1.0), "rand-m9-mstd0.5-inc1")
    assert flyegle.config.masking == "raster"  # one mask for a batch
    assert not flyegle.config.norm_pix_loss
    for name in named(Recipe):
        if name != "flyegle":
            recipe = read_recipe(name)
            assert (recipe.mixing, recipe.settings.decayed, recipe.augmentation.auto_augment) == (
                None,
                "official",
                None,
            )
    for name in named(Probe):
        crop = read_recipe(name, (), Probe).images.crop
        assert crop == ("shift" if name.startswith("small") else "first_box")
    for name in named(FineTuning):
        tuned = read_recipe(name, (), FineTuning)
        assert (tuned.head_std, tuned.norm_from_encoder, tuned.settings.decayed) == (2e-5, False, "official")
    lost = read_recipe("mindformers-finetune", ["decayed=first_groups"], FineTuning).settings
    assert (lost.decayed, lost.layer_decay) == ("first_groups", 0.65)


@pytest.mark.parametrize("wrong", ["decayed=some", "crop=second_box", "cutmix=-1", "auto_augment=rand-m9"])
def test_a_mistake_that_nobody_made_is_refused(wrong: str) -> None:
    with pytest.raises(Problem, match=wrong.partition("=")[0] if "auto" not in wrong else "inc1"):
        read_recipe(None, [wrong]).augmentation  # noqa: B018


def test_settings_take_the_last_part_of_a_name_or_all_of_it() -> None:
    assert read_recipe(None, ["epochs=3"]) == read_recipe(None, ["schedule.epochs=3"])
    recipe = read_recipe("small-cpu", ["lr=null", "blr=1e-3", "betas=[0.9, 0.99]", "data_format=npz", "steps=5"])
    assert recipe.lr == 1e-3 * 128 / 256
    assert recipe.optimizer.betas == (0.9, 0.99)
    assert recipe.data.data_format == "npz"
    assert recipe.steps(62) == 5
    assert replace(recipe, schedule=replace(recipe.schedule, steps=None)).steps(62) == 12 * 62


WRONG = [
    ("epoch=3", "did you mean epochs?"),
    ("schedule.epoch=3", "did you mean schedule.epochs?"),
    ("nonsense=3", "`polymae recipes official-base` lists them all"),
    ("epochs", "--set epochs=100"),
    ("lr=fast", "optimizer.lr is fast; it must be a number or null"),
    ("epochs=1.5", "schedule.epochs is 1.5; it must be a whole number"),
    ("epochs=0", "epochs is 0; it must be above 0"),
    ("mask_ratio=1", "mask_ratio is 1.0; it must be above 0 and below 1"),
    ("betas=[0.9, 1.0]", "both must be 0 or more and below 1"),
    ("precision=fp8", "it must be one of ['float32', 'bfloat16', 'float16']"),
    ("micro_batch_size=0", "micro_batch_size is 0; it must be above 0"),
    ("accumulate=9999", "there cannot be more parts than images"),
    ("seed=-1", "seed is -1; it must be 0 or more"),
]


@pytest.mark.parametrize(("text", "expected"), WRONG)
def test_a_wrong_setting_is_named_with_its_remedy(text: str, expected: str) -> None:
    with pytest.raises(Problem) as caught:
        read_recipe(None, [text])
    assert expected in str(caught.value)


def test_wrong_files(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    for content, expected in (
        ("- 1\n", "it holds one list"), ("a: [", "cannot be read as YAML"), ("epochs: 3\n", "schedule.epochs"),
        ("schedule: 3\n", "it must hold settings by name"), ("schedule:\n  epoch: 3\n", "did you mean schedule.epochs?"),
    ):  # fmt: skip
        path.write_text(content)
        with pytest.raises(Problem) as caught:
            read_recipe(path)
        assert expected in str(caught.value), content
    with pytest.raises(Problem, match="Did you mean 'official-base'"):
        read_recipe("official_base")
    with pytest.raises(Problem, match="a classifier; pre-training takes an autoencoder"):
        read_recipe(None, ["model=vit_base_patch16"]).config  # noqa: B018
    with pytest.raises(ConfigError):
        read_recipe(None, ["input_size=225"]).config  # noqa: B018
    path.write_text("")
    assert read_recipe(path) == Recipe()


@pytest.mark.parametrize(
    ("settings", "parts"),
    [(["accumulate=1"], 1), (["micro_batch_size=64"], 2), (["micro_batch_size=63"], 3), (["micro_batch_size=999"], 1),
     (["micro_batch_size=64", "accumulate=5"], 5), (["micro_batch_size=1"], 128)],
)  # fmt: skip
def test_a_step_has_as_many_parts_as_its_images_need(settings: list[str], parts: int) -> None:
    assert read_recipe("small-cpu", settings).batch.parts == parts


def test_what_differs_is_listed_and_what_is_free_is_not() -> None:
    one = read_recipe("small-cpu")
    free = [
        "workers=0",
        "accumulate=4",
        "micro_batch_size=7",
        "save_every_steps=3",
        "steps=9",
        "about=other",
        "compiled=false",
    ]
    assert differences(one, read_recipe("small-cpu", free)) == {}
    other = read_recipe("small-cpu", ["seed=1", "epochs=13", *free])
    assert differences(one, other) == {"seed": (0, 1), "schedule.epochs": (12, 13)}
    assert set(values(one)) == {name for name, _ in leaves()}
