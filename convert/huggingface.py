"""The config.json of models on the Hugging Face Hub: that of transformers, read and written, and that of timm, read."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from reprlib import repr as shortened
from typing import Any

from ..backends.config import Config, ConfigError, MAEConfig, ViTConfig
from ..backends.presets import PRESETS
from .dialects import OF_CLASSIFIERS, Contents, encoder_config
from .tensors import CheckpointProblem

FILE = "config.json"
_ENCODER = {
    "img_size": ("image_size", 224), "patch_size": ("patch_size", 16), "in_chans": ("num_channels", 3),
    "embed_dim": ("hidden_size", 768), "depth": ("num_hidden_layers", 12), "num_heads": ("num_attention_heads", 12),
    "norm_eps": ("layer_norm_eps", 1e-12),
}  # fmt: skip
_DECODER = {
    "decoder_embed_dim": ("decoder_hidden_size", 512), "decoder_depth": ("decoder_num_hidden_layers", 8),
    "decoder_num_heads": ("decoder_num_attention_heads", 16), "norm_pix_loss": ("norm_pix_loss", False),
}  # fmt: skip
_TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_python_tanh")
_KINDS: dict[Contents, tuple[str, str]] = {
    "mae": ("vit_mae", "ViTMAEForPreTraining"),
    "encoder": ("vit_mae", "ViTMAEModel"),
    "classifier": ("vit", "ViTForImageClassification"),
}

_TIMM_ARGUMENTS = ("img_size", "patch_size", "in_chans", "embed_dim", "depth", "num_heads", "mlp_ratio")
_TIMM_POOLING = {"token": "cls", "avg": "gap"}


def read_config(text: str, contents: Contents, where: str) -> tuple[Config, dict[str, Any]]:
    """The model that transformers' config.json describes, and its program's settings without a place in a configuration.

    Missing keys have transformers' defaults. Raises CheckpointProblem for a model that cannot be expressed here.
    """
    try:
        declared = json.loads(text)
        if not isinstance(declared, dict):
            raise ValueError("it is not a JSON object")
        values = {ours: declared.get(theirs, default) for ours, (theirs, default) in _ENCODER.items()}
        values["img_size"] = tuple(values["img_size"]) if isinstance(values["img_size"], list) else values["img_size"]
        values["patch_size"] = _side(values["patch_size"])
        if isinstance(values["norm_eps"], bool) or not isinstance(values["norm_eps"], (int, float)):
            raise ValueError(f"layer_norm_eps is {shortened(values['norm_eps'])}")
        values["mlp_ratio"] = _ratio(declared.get("intermediate_size", 3072), values["embed_dim"])
        activation = declared.get("hidden_act", "gelu")
        if activation not in ("gelu", *_TANH):
            raise ValueError(f"hidden_act {shortened(activation)} is not the GELU of a masked autoencoder")
        function = {"gelu": "tanh" if activation in _TANH else "erf"}
        if contents in OF_CLASSIFIERS:
            labels = declared.get("id2label")
            if not isinstance(labels, (dict, type(None))):
                raise ValueError(f"id2label is {shortened(labels)}")
            return ViTConfig(**values, pooling="cls", num_classes=len(labels) if labels else 2), function
        values |= {ours: declared.get(theirs, default) for ours, (theirs, default) in _DECODER.items()}
        config, hidden = MAEConfig(**values), declared.get("decoder_intermediate_size", 2048)
        if contents != "mae":
            return config, function
        config = _with_ratio_of_both(config, hidden)
        if config.mlp_dim(config.decoder_embed_dim) != hidden:
            raise CheckpointProblem(
                f"{where}: its decoder_intermediate_size of {shortened(hidden)} is not to {config.decoder_embed_dim} as its "
                f"intermediate_size is to {config.embed_dim}. A model here has one ratio (mlp_ratio) for both, so this one "
                "cannot be expressed; its encoder can: move the config.json away, and convert with --encoder-only and -m.",
                code="not-expressible",
            )
        return config, function
    except CheckpointProblem:  # a ValueError too
        raise
    except (ValueError, TypeError, OverflowError, RecursionError) as problem:
        raise CheckpointProblem(
            f"{where} is not the config.json of a ViTMAE or ViT model that can be read here: {problem}. Correct it, or "
            "move it away and say what the model is with -m.",
            code="bad-note",
        ) from None


def read_timm_config(text: str, contents: Contents) -> Config | None:
    """The model that timm's config.json describes by `architecture` and `model_args`; None if it is no ViT here.

    The names of architectures are timm's: vit_base_patch16_224 is our vit_base_patch16 for images of 224 pixels.
    """
    try:
        declared = json.loads(text)
        arguments = dict(declared.get("model_args") or {})
        name = re.fullmatch(r"(vit_\w+_patch\d+)_(\d+)\w*", str(declared["architecture"]))
        preset = PRESETS.get(name[1]) if name else None
        if name is None or not isinstance(preset, ViTConfig):
            return None
        pretrained = declared.get("pretrained_cfg") or declared
        channels, *size = pretrained.get("input_size") or (3, int(name[2]), int(name[2]))
        values: dict[str, Any] = {"img_size": tuple(size), "in_chans": channels, "norm_eps": 1e-6}
        values |= {name: arguments[name] for name in _TIMM_ARGUMENTS if name in arguments}
        values["img_size"] = tuple(values["img_size"]) if isinstance(values["img_size"], list) else values["img_size"]
        config = replace(preset, **values)
        if contents not in OF_CLASSIFIERS:
            return encoder_config(config)
        pooling = _TIMM_POOLING.get(declared.get("global_pool", ""), config.pooling)
        return replace(config, pooling=pooling, num_classes=declared.get("num_classes") or config.num_classes)  # type: ignore[arg-type]
    except (ValueError, TypeError, KeyError, AttributeError, ConfigError, RecursionError):
        return None


def without_qkv_bias(text: str) -> bool:
    """Whether a config.json says that q, k and v have no bias."""
    return json.loads(text).get("qkv_bias", True) is False


def write_config(
    config: Config, contents: Contents, function: Mapping[str, str], dtype: str, before: str | None
) -> str:
    """The config.json with which transformers builds this model and computes the same.

    function: as WeightSet.function. before: the config.json that the weights came with; whatever in it does not contradict
    the model is kept (labels, mask_ratio, dropout).
    """
    kind, architecture = _KINDS[contents]
    settings: dict[str, Any] = {"initializer_range": 0.02}
    settings |= {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0}
    settings |= {"mask_ratio": 0.75} if isinstance(config, MAEConfig) else {}
    old = json.loads(before) if before else {}
    settings |= old if old.get("model_type", kind) == kind else {}
    settings |= {theirs: getattr(config, ours) for ours, (theirs, _) in _ENCODER.items()}
    settings |= {"architectures": [architecture], "model_type": kind, "dtype": dtype, "qkv_bias": True}
    if (settings.get("hidden_act") in _TANH) != (function.get("gelu") == "tanh") or "hidden_act" not in settings:
        settings["hidden_act"] = "gelu_new" if function.get("gelu") == "tanh" else "gelu"
    settings |= {"image_size": config.img_size[0], "intermediate_size": config.mlp_dim(config.embed_dim)}
    settings |= {"layer_norm_eps": config.eps_of_blocks}
    if isinstance(config, MAEConfig):
        settings |= {theirs: getattr(config, ours) for ours, (theirs, _) in _DECODER.items()}
        settings |= {"decoder_intermediate_size": config.mlp_dim(config.decoder_embed_dim)}
    elif len(settings.get("id2label") or ()) != config.num_classes:
        labels = [f"LABEL_{i}" for i in range(config.num_classes)]
        settings |= {"id2label": {str(i): label for i, label in enumerate(labels)}}
        settings |= {"label2id": {label: i for i, label in enumerate(labels)}}
    return json.dumps(settings, indent=2, sort_keys=True) + "\n"


def _side(patch: Any) -> Any:
    """The patch size, also if it is given as height and width."""
    if not isinstance(patch, list):
        return patch
    if len(patch) != 2 or patch[0] != patch[1]:
        raise ValueError(f"patch_size is {shortened(patch)}; patches must be square")
    return patch[0]


def _with_ratio_of_both(config: MAEConfig, hidden: Any) -> MAEConfig:
    """With the mlp_ratio that gives the decoder's hidden width too, if one does: widths are rounded down.

    The least that gives a width is the ratio of one of the two, and the larger of them is the only one that can give both.
    """
    if type(hidden) is not int:
        return config
    both = replace(config, mlp_ratio=max(config.mlp_ratio, _ratio(hidden, config.decoder_embed_dim)))
    return both if both.mlp_dim(config.embed_dim) == config.mlp_dim(config.embed_dim) else config


def _ratio(hidden: Any, width: Any) -> float:
    """mlp_ratio, so that int(width * ratio) is exactly the hidden width."""
    if type(hidden) is not int or type(width) is not int or width < 1:
        raise ValueError(
            f"hidden_size {shortened(width)}, intermediate_size {shortened(hidden)}: not whole numbers above 0"
        )
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)
