"""Runs as mindformers' YAML files describe them: the keys and values of its configs/mae and configs/vit, with other sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_CONTEXT = {"mode": 0, "device_target": "Ascend", "max_call_depth": 10000, "save_graphs": False, "device_id": 0}
_RUN: dict[str, Any] = {
    "seed": 0, "run_mode": "train", "output_dir": "./output", "load_checkpoint": "", "auto_trans_ckpt": False,
    "only_save_strategy": False, "resume_training": False, "context": _CONTEXT, "remote_save_url": "an address",
    "runner_wrapper": {
        "type": "MFTrainOneStepCell", "scale_sense": {"type": "FixedLossScaleUpdateCell", "loss_scale_value": 1024},
    },
    "use_parallel": False, "parallel": {"parallel_mode": 0, "gradients_mean": True, "full_batch": False},
    "parallel_config": {"data_parallel": 1, "model_parallel": 1, "micro_batch_num": 1},
    "micro_batch_interleave_num": 1, "moe_config": {"expert_num": 1, "capacity_factor": 1.05},
    "recompute_config": {"recompute": False}, "auto_tune": False, "filepath_prefix": "./autotune", "autotune_per_step": 10,
    "profile": False, "profile_start_step": 1, "init_start_profile": False, "lr_scale": True, "lr_scale_factor": 256,
    "callbacks": [
        {"type": "MFLossMonitor"}, {"type": "CheckpointMointor", "prefix": "mindformers", "save_checkpoint_steps": 100},
    ],
    "eval_callbacks": [{"type": "ObsMonitor"}],
}  # fmt: skip
_SIZES: dict[str, Any] = {
    "image_size": 224, "patch_size": 16, "num_channels": 3, "initializer_range": 0.02, "hidden_size": 768,
    "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072, "qkv_bias": True, "hidden_act": "gelu",
    "post_layernorm_residual": False, "layer_norm_eps": 0.000001, "attention_probs_dropout_prob": 0.0,
    "hidden_dropout_prob": 0.0,
}  # fmt: skip


def _data(folder: str, batch: int, columns: list[str], transforms: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "seed": 2022, "batch_size": batch,
        "data_loader": {
            "type": "ImageFolderDataset", "dataset_dir": folder, "num_parallel_workers": 8, "shuffle": True,
        },
        "transforms": transforms, "input_columns": columns, "output_columns": columns, "column_order": columns,
        "num_parallel_workers": 8, "python_multiprocessing": False, "drop_remainder": True, "repeat": 1, "numa_enable": False,
        "prefetch_size": 30,
    }  # fmt: skip


def pretraining() -> dict[str, Any]:
    """As run_mae_vit_base_p16_224_800ep.yaml."""
    box = {"type": "RandomCropDecodeResize", "size": 224, "scale": [0.2, 1.0], "interpolation": "cubic"}
    statistics = {"type": "Normalize", "mean": [123.675, 118.575, 103.53], "std": [58.395, 62.22, 57.375]}
    flip = {"type": "RandomHorizontalFlip", "prob": 0.5}
    train = _data("imageNet-1k/train", 64, ["image"], [box, flip, statistics, {"type": "HWC2CHW"}])
    train["mask_policy"] = {"type": "MaeMask", "input_size": 224, "patch_size": 16, "mask_ratio": 0.75}
    decoder = {
        "decoder_hidden_size": 512, "decoder_num_hidden_layers": 8, "decoder_num_attention_heads": 16,
        "decoder_intermediate_size": 2048, "norm_pix_loss": True, "checkpoint_name_or_path": "mae_vit_base_p16",
    }  # fmt: skip
    return {
        **_RUN, "runner_config": {"epochs": 10, "batch_size": 64, "image_size": 224, "sink_mode": True, "sink_size": 2},
        "trainer": {"type": "masked_image_modeling", "model_name": "mae_vit_base_p16"}, "train_dataset": train,
        "train_dataset_task": {"type": "MIMDataset", "dataset_config": train},
        "model": {
            "arch": {"type": "ViTMAEForPreTraining"},
            "model_config": {"type": "ViTMAEConfig", "mask_ratio": 0.75, **_SIZES, **decoder},
        },
        "lr_schedule": {
            "type": "cosine", "learning_rate": 0.00015, "lr_end": 0.0, "warmup_lr_init": 0.0, "warmup_epochs": 40,
            "total_steps": -1,
        },
        "layer_scale": False, "layer_decay": 0.65,
        "optimizer": {"type": "adamw", "beta1": 0.9, "beta2": 0.95, "eps": "1e-8", "weight_decay": 0.05},
        "processor": {"type": "ViTMAEProcessor", "image_processor": {"type": "ViTMAEImageProcessor", "size": 224}},
    }  # fmt: skip


def finetuning() -> dict[str, Any]:
    """As run_vit_base_p16_224_100ep.yaml."""
    statistics = {"type": "Normalize", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "is_hwc": False}
    train = _data("imageNet-1k/train", 32, ["image", "label"], [
        {"type": "Decode"}, {"type": "RandomResizedCrop", "size": 224, "scale": [0.08, 1.0], "interpolation": "cubic"},
        {"type": "RandomHorizontalFlip", "prob": 0.5}, {"type": "ToPIL"},
        {"type": "rand_augment_transform", "config_str": "rand-m9-mstd0.5-inc1", "hparams": {"translate_const": 100}},
        {"type": "ToTensor"}, statistics,
        {"type": "RandomErasing", "probability": 0.25, "mode": "pixel", "max_count": 1},
    ])  # fmt: skip
    train["mixup_op"] = {
        "mixup_alpha": 0.8, "cutmix_alpha": 1.0, "cutmix_minmax": None, "prob": 1.0, "switch_prob": 0.5, "label_smoothing": 0.1,
    }  # fmt: skip
    evaluated = _data("imageNet-1k/val", 32, ["image", "label"], [
        {"type": "Decode"}, {"type": "Resize", "size": 256, "interpolation": "cubic"}, {"type": "CenterCrop", "size": 224},
        {"type": "ToTensor"}, statistics,
    ]) | {"eval_interval": 1, "eval_offset": 0}  # fmt: skip
    head = {
        "drop_path_rate": 0.1, "use_mean_pooling": True, "num_labels": 1000, "loss_type": "SoftTargetCrossEntropy",
        "checkpoint_name_or_path": "vit_base_p16",
    }  # fmt: skip
    return {
        **_RUN, "src_strategy_path_or_dir": "", "do_eval": False,
        "runner_config": {
            "epochs": 100, "batch_size": 32, "image_size": 224, "sink_mode": True, "sink_size": 2, "num_classes": 1000,
        },
        "trainer": {"type": "image_classification", "model_name": "vit_base_p16"}, "train_dataset": train,
        "train_dataset_task": {"type": "ImageCLSDataset", "dataset_config": train}, "eval_dataset": evaluated,
        "eval_dataset_task": {"type": "ImageCLSDataset", "dataset_config": evaluated},
        "model": {"arch": {"type": "ViTForImageClassification"}, "model_config": {"type": "ViTConfig", **_SIZES, **head}},
        "lr_schedule": {
            "type": "cosine", "learning_rate": 0.0005, "lr_end": 0.000001, "warmup_epochs": 5, "total_steps": -1,
        },
        "layer_scale": True, "layer_decay": 0.65,
        "optimizer": {"type": "adamw", "beta1": 0.9, "beta2": 0.999, "eps": 0.00000001, "weight_decay": 0.05},
        "metric": {"type": "Accuracy", "eval_type": "classification"},
        "processor": {"type": "ViTProcessor", "image_processor": {"type": "ViTImageProcessor", "size": 224}},
    }  # fmt: skip


def written(path: Path, tree: dict[str, Any], **changes: Any) -> Path:
    """A run's file; changes: by dotted name with __ for its dots; a value of ... takes the key away."""
    import copy

    import yaml

    tree = copy.deepcopy(tree)
    for dotted, value in changes.items():
        *groups, last = dotted.split("__")
        place = tree
        for group in groups:
            place = place.setdefault(group, {})
        if value is ...:
            del place[last]
        else:
            place[last] = value
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path
