"""A run as mindformers' YAML files describe it (run_mode, trainer, model, runner_config, ...), as a recipe of ours.

Every key is either taken, or must have the value by which nothing changes, or is named in a notice; of anything else, all
problems are raised at once. Source: the files of mindformers 0.3 to 0.8, configs/mae and configs/vit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..backends.config import Config, ConfigError, MAEConfig, ViTConfig
from ..backends.presets import NAMED, preset_name
from ..files.errors import Problem
from ..training.classifying import FineTuning
from ..training.reading import as_settings, read_recipe
from ..training.recipe import Common, Recipe, tree_of
from .models import as_text
from .sources import our_name
from .transforms import of_evaluation, of_training

MODES = ("train", "finetune", "eval", "predict")
TASKS = {
    "masked_image_modeling": "masked_image_modeling", "mim": "masked_image_modeling",
    "MaskedImageModelingTrainer": "masked_image_modeling", "image_classification": "image_classification",
    "ImageClassificationTrainer": "image_classification",
}  # fmt: skip
# Ours by theirs.
_SIZES = {
    "image_size": "img_size", "patch_size": "patch_size", "num_channels": "in_chans", "hidden_size": "embed_dim",
    "num_hidden_layers": "depth", "num_attention_heads": "num_heads", "layer_norm_eps": "norm_eps",
    "decoder_hidden_size": "decoder_embed_dim", "decoder_num_hidden_layers": "decoder_depth",
    "decoder_num_attention_heads": "decoder_num_heads",
}  # fmt: skip
# Where another value would change what is computed, and nothing here computes that.
_NEUTRAL: dict[str, tuple[tuple[Any, ...], str]] = {
    "use_parallel": ((False,), "a run is one process here: leave it out, and give batch_size of the whole step"),
    "micro_batch_interleave_num": ((1,), "a batch is not interleaved here"),
    "moe_config.expert_num": ((1,), "these models have no experts"),
    "only_save_strategy": ((False,), "there is no strategy to be saved"),
    "model.model_config.qkv_bias": ((True,), "q, k and v have biases here"),
    "model.model_config.hidden_act": (("gelu",), "the activation is GELU"),
    "model.model_config.post_layernorm_residual": ((False,), "the residual is that before the norm"),
    "model.model_config.attention_probs_dropout_prob": ((0,), "there is no dropout; drop_path_rate leaves out branches"),
    "model.model_config.hidden_dropout_prob": ((0,), "there is no dropout; drop_path_rate leaves out branches"),
    "model.model_config.init_values": ((None,), "there is no layer scale"),
    "model.model_config.window_size": ((None,), "there is no relative position bias"),
    "model.model_config.loss_type": (
        ("SoftTargetCrossEntropy", "CrossEntropySmooth", "CrossEntropyLoss"), "the loss is cross entropy with the targets"
    ),
    "*_dataset.data_loader.type": (("ImageFolderDataset",), "the images are those of dataset_dir (docs/data.md)"),
    "train_dataset.data_loader.shuffle": ((True,), "every epoch has a new order"),
    "train_dataset.drop_remainder": ((True,), "what does not fill a batch is left out of an epoch"),
    "train_dataset.repeat": ((1,), "an epoch has every image once"),
    "lr_schedule.type": (
        ("cosine", "CosineWithWarmUpLR", "WarmUpCosineDecayV1"), "the rate rises evenly and falls as a cosine"
    ),
    "lr_schedule.total_steps": ((-1, None), "the schedule is that of all epochs; --set steps=... stops before"),
    "lr_schedule.decay_*": ((-1, None), "the cosine ends with the last epoch"),
    "lr_schedule.warmup_steps": ((0, None), "give warmup_epochs"),
    "lr_schedule.warmup_lr*": ((0,), "the rate rises from 0"),
    "optimizer.type": (("adamw", "AdamW", "AdamWeightDecay", "FP32StateAdamWeightDecay"), "the optimizer is AdamW"),
    "runner_config.initial_epoch": ((0,), "train(resume=RUN), or --set, goes on with a run"),
    "runner_config.has_trained_*": ((0,), "train(resume=RUN) goes on with a run"),
}  # fmt: skip
# What no number here depends on: how it runs, where it runs, what it prints.
_NEEDLESS = (
    "context.*", "parallel.*", "parallel_config.*", "recompute_config.*", "moe_config.*", "auto_tune", "filepath_prefix",
    "autotune_per_step", "profile*", "init_start_profile", "remote_save_url", "callbacks", "eval_callbacks", "processor.*",
    "train_dataset_task.*", "eval_dataset_task.*", "metric.*", "model.arch.*", "model.model_config.type", "*_columns",
    "*.column_order", "*.num_parallel_workers", "*.python_multiprocessing", "*.numa_enable", "*.prefetch_size",
    "runner_config.sink_*", "runner_config.per_epoch_size", "runner_wrapper.type", "auto_trans_ckpt",
    "src_strategy_path_or_dir", "strategy_load_checkpoint", "eval_dataset.drop_remainder", "eval_dataset.repeat",
    "eval_dataset.data_loader.shuffle", "eval_dataset.seed", "eval_dataset.eval_*", "train_dataset.mask_policy.type",
)  # fmt: skip
# What is computed otherwise here, in words.
_OTHERWISE = {
    "model.model_config.initializer_range": "initial weights are the official ones, the same in every framework",
    "runner_wrapper.scale_sense*": "losses are scaled by one rule for every framework, and only in float16",
    "runner_wrapper.sens": "losses are scaled by one rule for every framework, and only in float16",
    "train_dataset.seed": "everything is drawn from the one seed of the run",
    "model.model_config.*_type": "computed in float32, where mindformers computes products in float16 (--set precision=float16)",
}


@dataclass(frozen=True)
class Run:
    """A run that a file describes. recipe: nested settings, with the task. notices: a sentence for each group of keys.

    checkpoint: load_checkpoint, or for eval and predict that of the model; None: none is named. resume: whether train goes on.
    """

    mode: str
    task: str
    recipe: Mapping[str, Any]
    train_data: str | None
    eval_data: str | None
    predict_data: Any
    checkpoint: str | None
    resume: bool
    output_dir: str | None
    notices: tuple[str, ...]


class Keys:
    """The file's values by dotted name, each taken once; what is wrong with them, and what is to be said of them."""

    def __init__(self, tree: Mapping[str, Any]):
        self.values = dict(_flat(tree))
        self.problems: list[str] = []
        self.notices: list[str] = []

    def take(self, *names: str, default: Any = None) -> Any:
        """The value of the first of these names that is there; all are taken, and two that differ are a problem."""
        there = {name: self.values.pop(name) for name in names if name in self.values}
        given = {name: value for name, value in there.items() if value is not None and value != ""}
        if len({repr(value) for value in given.values()}) > 1:
            self.problems.append(
                f"{' and '.join(f'{name} {value!r}' for name, value in given.items())} are one setting here"
            )
        return next(iter(given.values()), default)

    def number(self, *names: str, default: float | None = None) -> Any:
        """The same, as a number: YAML reads 1e-8 as a text."""
        value = self.take(*names, default=default)
        if isinstance(value, str):
            try:
                return float(value)
            except ValueError:
                pass
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            self.problems.append(f"{names[0]} is {value!r}; it must be a number")
            return default
        return value


def read_run(path: Path, changes: Mapping[str, Any] = MappingProxyType({})) -> Run:
    """The run that a YAML file in mindformers' layout describes; changes: other values, by dotted name ("run_mode").

    Raises Problem, with everything that has no equal here.
    """
    keys = Keys(_read(path))
    keys.values |= changes
    mode = keys.take("run_mode", default="train")
    named = keys.take("trainer.type", default="")
    task = TASKS.get(named, "")
    if mode not in MODES or not task:
        wrong = f"run_mode is {mode!r}; it must be one of {', '.join(MODES)}" if mode not in MODES else (
            f"trainer.type is {named!r}; it must be masked_image_modeling or image_classification"
        )  # fmt: skip
        raise Problem(f"{path}: {wrong}.", code="bad-argument")
    kind: type[Common] = Recipe if task == "masked_image_modeling" else FineTuning
    classifies = kind is FineTuning
    settings = _common(keys, classifies)
    settings |= _of_finetuning(keys, settings) if classifies else _of_pretraining(keys)
    checkpoint = keys.take("load_checkpoint", "runner_config.load_checkpoint")
    usual = keys.take("model.model_config.checkpoint_name_or_path")
    resume = keys.take("resume_training", default=False)
    if mode == "train" and checkpoint and not resume:
        keys.problems.append(
            "load_checkpoint is given and run_mode is train, which versions of mindformers take in two ways: finetune begins "
            "with its weights, resume_training: True goes on with a run"
        )
    data = {part: keys.take(f"{part}_dataset.data_loader.dataset_dir") for part in ("train", "eval")}
    predicted, output = keys.take("predict_data"), keys.take("output_dir")
    notices = _settled(keys, settings)
    if keys.problems:
        listed = "\n  ".join(keys.problems)
        raise Problem(
            f"{path} says what has no equal here ({len(keys.problems)}); change or remove these lines:\n  {listed}",
            code="bad-argument",
        )
    recipe = read_recipe(
        {"task": kind.task, "about": f"{path.name}, in mindformers' layout"}, as_settings(settings), kind
    )
    if mode in ("eval", "predict"):
        checkpoint = checkpoint or usual
    return Run(
        mode, task, {"task": kind.task, **tree_of(recipe)}, data["train"], data["eval"], predicted, checkpoint, bool(resume),
        output, notices,
    )  # fmt: skip


def _common(keys: Keys, classifies: bool) -> dict[str, Any]:
    """The settings that both tasks have."""
    rate = keys.number(
        "lr_schedule.learning_rate", "lr_schedule.base_lr", "lr_schedule.max_lr", "optimizer.learning_rate"
    )
    scaled, factor = keys.take("lr_scale", default=False), keys.number("lr_scale_factor", default=256)
    batch = keys.take("runner_config.batch_size", "train_dataset.batch_size", default=64)
    betas = keys.take("optimizer.betas") or [
        keys.number("optimizer.beta1", default=0.9), keys.number("optimizer.beta2", default=0.999)
    ]  # fmt: skip
    clipped = keys.take("runner_wrapper.use_clip_grad", default=False)
    norm = keys.number("runner_wrapper.max_grad_norm", default=1.0)
    settings = {
        "seed": keys.take("seed", default=0),
        "epochs": keys.take("runner_config.epochs", "runner_config.epoch", default=1),
        "batch_size": batch,
        "warmup_epochs": keys.number("lr_schedule.warmup_epochs", default=0),
        "min_lr": keys.number("lr_schedule.lr_end", "lr_schedule.min_lr", default=0.0),
        "weight_decay": keys.number("optimizer.weight_decay", default=0.0),
        "eps": keys.number("optimizer.eps", default=1e-8),
        "betas": betas,
        "clip_grad": norm if clipped else None,
        **of_training(keys, _transforms(keys, "train"), classifies),
    }
    if rate is not None:
        settings |= {"blr": rate * 256 / factor} if scaled else {"lr": rate}
    for callback in keys.values.get("callbacks") or ():
        if isinstance(callback, dict) and callback.get("save_checkpoint_steps"):
            settings["save_every_steps"] = callback["save_checkpoint_steps"]
    return settings


def _of_pretraining(keys: Keys) -> dict[str, Any]:
    model = "model.model_config"
    if keys.take("layer_scale", default=False):
        keys.problems.append("layer_scale: pre-training has one rate for all layers")
    keys.take("layer_decay")  # which is of no effect without layer_scale
    if keys.number(f"{model}.drop_path_rate", default=0):
        keys.problems.append(f"{model}.drop_path_rate: pre-training leaves out no branches")
    return {
        "mask_ratio": keys.number(f"{model}.mask_ratio", "train_dataset.mask_policy.mask_ratio", default=0.75),
        "norm_pix_loss": keys.take(f"{model}.norm_pix_loss", default=True),
        "model": _model(keys, MAEConfig),
    }


def _of_finetuning(keys: Keys, common: dict[str, Any]) -> dict[str, Any]:
    model, mix = "model.model_config", "train_dataset.mixup_op"
    decayed, decay = keys.take("layer_scale", default=False), keys.number("layer_decay", default=0.75)
    mean = keys.take(f"{model}.use_mean_pooling", default=True)
    return {
        "num_classes": keys.take(f"{model}.num_labels", "runner_config.num_classes"),
        "drop_path": keys.number(f"{model}.drop_path_rate", default=0.0),
        "pooling": "gap" if mean else "cls",
        "layer_decay": decay if decayed else 1.0,
        "mixup": keys.number(f"{mix}.mixup_alpha", default=0.0),
        "cutmix": keys.number(f"{mix}.cutmix_alpha", default=0.0),
        "cutmix_minmax": keys.take(f"{mix}.cutmix_minmax"),
        "mix_prob": keys.number(f"{mix}.prob", default=1.0),
        "mix_switch_prob": keys.number(f"{mix}.switch_prob", default=0.5),
        "smoothing": keys.number(f"{mix}.label_smoothing", default=0.0),
        "evaluate_every_epochs": 1 if keys.take("do_eval", default=False) else None,
        "evaluation_batch": keys.take("eval_dataset.batch_size", default=64),
        **of_evaluation(keys, _transforms(keys, "eval"), common),
        "model": _model(keys, ViTConfig),
    }


def _transforms(keys: Keys, part: str) -> list[dict[str, Any]]:
    return [one for one in keys.take(f"{part}_dataset.transforms", default=[]) if isinstance(one, dict)]


def _model(keys: Keys, kind: type[Any]) -> str:
    """The model, as -m takes it: a preset where the sizes are one's."""
    name = our_name(str(keys.take("trainer.model_name", default="")))
    usual = NAMED.get(name, NAMED["mae_vit_base_patch16" if kind is MAEConfig else "vit_base_patch16"])
    if not isinstance(usual, kind):
        keys.problems.append(f"trainer.model_name is {name}, which is of another task")
        return name
    given: dict[str, Any] = {}
    beside = {"image_size": ("runner_config.image_size", "train_dataset.mask_policy.input_size"),
              "patch_size": ("train_dataset.mask_policy.patch_size",)}  # fmt: skip
    for theirs, ours in _SIZES.items():
        value = keys.number(f"model.model_config.{theirs}", *beside.get(theirs, ()))
        if value is not None and ours in kind.__dataclass_fields__:
            given[ours] = value
    try:
        config: Config = replace(usual, **given)
        hidden = keys.number("model.model_config.intermediate_size", default=config.mlp_dim(config.embed_dim))
        config = replace(config, mlp_ratio=hidden / config.embed_dim)
        decoder = keys.number("model.model_config.decoder_intermediate_size")
        if isinstance(config, MAEConfig) and decoder not in (None, config.mlp_dim(config.decoder_embed_dim)):
            keys.problems.append(
                f"decoder_intermediate_size is {decoder}; the decoder's hidden layers are {config.mlp_ratio:g} times its width, "
                f"as the encoder's: {config.mlp_dim(config.decoder_embed_dim)}"
            )
    except (ConfigError, TypeError) as problem:
        keys.problems.append(f"model.model_config: {problem}")
        return name
    preset = preset_name(config)
    return preset if preset in NAMED else as_text(config, kind)


def _settled(keys: Keys, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """What is left over: problems, and the notices of the rest."""
    needless, otherwise = [], dict[str, list[str]]()
    for name, value in sorted(keys.values.items()):
        neutral = next((row for pattern, row in _NEUTRAL.items() if fnmatch(name, pattern)), None)
        words = next((text for pattern, text in _OTHERWISE.items() if fnmatch(name, pattern)), None)
        if neutral is not None:
            if value not in (*neutral[0], "", None):
                keys.problems.append(f"{name} is {value!r}: {neutral[1]}")
        elif words is not None:
            otherwise.setdefault(words, []).append(name)
        elif any(fnmatch(name, pattern) for pattern in _NEEDLESS):
            top, _, rest = name.partition(".")
            needless.append(top if f"{top}.*" in _NEEDLESS else rest if top.endswith("_dataset") else name)
        else:
            keys.problems.append(f"{name}: it is not known here")
    notices = [*keys.notices, *(f"{', '.join(names)}: {words}" for words, names in otherwise.items())]
    notices.append("GELU is exact and the variance of a patch unbiased, as official, where mindformers' are not")
    if settings["warmup_epochs"] > settings["epochs"]:
        notices.append(
            f"{settings['epochs']} epochs with {settings['warmup_epochs']} of warm-up: the rate never reaches its top; the "
            "recipe mindformers is what the file's name says"
        )
    if settings.get("layer_decay", 1.0) != 1.0:
        notices.append(
            "layer_decay: mindformers leaves weight decay out of most groups then; --set decayed=first_groups repeats that"
        )
    if needless:
        notices.append(f"nothing here depends on {', '.join(dict.fromkeys(needless))}")
    return tuple(notices)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    values: list[tuple[str, Any]] = []
    for name, value in tree.items():
        dotted = f"{prefix}{name}"
        if isinstance(value, dict) and not dotted.endswith("_dataset_task.dataset_config"):  # the data set once more
            values += _flat(value, f"{dotted}.")
        else:
            values.append((dotted, value))
    return values


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Problem(f"There is no {path}; give a YAML file in mindformers' layout.", code="no-such-file") from None
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as problem:
        raise Problem(
            f"{path} cannot be read as YAML ({' '.join(str(problem).split())}).", code="cannot-read"
        ) from None
    if not isinstance(tree, dict) or "trainer" not in tree:
        raise Problem(
            f"{path} is not in mindformers' layout: it has no trainer. A recipe of PolyMAE is taken by polymae pretrain, "
            f"finetune or linprobe: --recipe {path}",
            code="bad-argument",
        )
    return tree
