"""What the matrix of conversions runs over: a tiny model of every kind and family, and the dialects that can express it."""

import json
from dataclasses import asdict
from functools import cache

import numpy as np
from by_hand import FLYEGLE_UNUSED, STEPS, by_hand, gray_mask_token

from polymae.backends.config import MAEConfig, ViTConfig
from polymae.convert.conversion import Wish, convert, prepare
from polymae.convert.dialects import DIALECTS
from polymae.convert.formats import FORMATS
from polymae.convert.probe import probe_tensors
from polymae.convert.resolve import COMPUTED
from polymae.convert.tensors import CheckpointProblem
from polymae.convert.transform import WeightSet, refuse_inexpressible
from polymae.convert.writing import spelled, write_weights

WRITTEN = tuple(FORMATS)
# No two sizes are equal where they need not be: a confusion of two shows as a wrong shape.
_SIZES = {"img_size": 4, "patch_size": 2, "embed_dim": 24, "depth": 1, "num_heads": 3, "mlp_ratio": 1.25}
_DECODER = {"decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2}
_FLYEGLE = {"norm_eps": 1e-5, "positions": "1d"}
_FLYEGLE_MAE = {**_FLYEGLE, "decoder_norm": False, "head": "conv", "masking": "raster", "loss_over": "all"}
_FLYEGLE_VIT = {**_FLYEGLE, "train_positions": False}


def _mae(**settings):
    return MAEConfig(**{**_SIZES, **_DECODER, **settings})


def _vit(**settings):
    return ViTConfig(**{**_SIZES, "num_classes": 5, **settings})


# Family and kind, the model, and what the file holds.
CASES = {
    "official mae": (_mae(), "mae"),
    "official mae, not square": (_mae(img_size=(4, 6), in_chans=2, depth=2), "mae"),
    "official mae, 2 channels": (_mae(in_chans=2, depth=2), "mae"),
    "official encoder": (_mae(), "encoder"),
    "official encoder, not square": (_mae(img_size=(4, 6), in_chans=2), "encoder"),
    "official classifier, gap": (_vit(), "classifier"),
    "official classifier, cls": (_vit(pooling="cls"), "classifier"),
    "official headless, gap": (_vit(), "headless"),
    "official linear probe, gap": (_vit(head_norm=True), "probe"),
    "official linear probe, cls": (_vit(head_norm=True, pooling="cls"), "probe"),
    "libai mae": (_mae(block_norm_eps=1e-5, train_positions=True), "mae"),
    "libai encoder": (_mae(block_norm_eps=1e-5, train_positions=True), "encoder"),
    "libai classifier, gap": (_vit(norm_eps=1e-5), "classifier"),
    "libai classifier, cls": (_vit(norm_eps=1e-5, pooling="cls"), "classifier"),
    "flyegle mae": (_mae(**_FLYEGLE_MAE), "mae"),
    "flyegle encoder": (_mae(**_FLYEGLE_MAE), "encoder"),
    "flyegle classifier, cls": (_vit(pooling="cls", **_FLYEGLE_VIT), "classifier"),
    "flyegle classifier, mean": (_vit(pooling="mean", **_FLYEGLE_VIT), "classifier"),
}


def probe(case):
    """The probe of a case, as weights by spec name."""
    config, contents = CASES[case]
    return WeightSet(config, contents, probe_tensors(config, contents))


def refusal(dialect, weights):
    """Why a dialect cannot express some weights; nothing where it can."""
    try:
        refuse_inexpressible(DIALECTS[dialect], weights)
        spelled(weights, DIALECTS[dialect])
    except CheckpointProblem as problem:
        return str(problem)
    return ""


@cache
def expressible(case):
    """The dialects that can express a case's probe."""
    weights = probe(case)
    return tuple(name for name in DIALECTS if not refusal(name, weights))


def pairs(case):
    """Every ordered pair of two dialects between which the case can be converted."""
    return [(a, b) for a in expressible(case) for b in expressible(case) if a != b]


def pairs_to_run(case):
    """Without those that the official family has with the same tensors: of another family, the pairs with its own dialect."""
    family = case.partition(" ")[0]
    return [pair for pair in pairs(case) if family == "official" or any(d.startswith(family) for d in pair)]


def as_model(config):
    """What --model takes for any configuration."""
    return ",".join(f"{name}={json.dumps(value)}" for name, value in asdict(config).items())


def sizes(config):
    """A configuration without what is no size, but how a program computes."""
    return {name: value for name, value in asdict(config).items() if name not in COMPUTED}


def name_of(form):
    """A file of this format, by the ending that its loader wants."""
    return f"w{FORMATS[form].ENDINGS[0]}"


def written(folder, weights, dialect, form):
    """A file as the dialect's own program would write it: nothing of ours in it or beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name_of(form)
    write_weights(weights, DIALECTS[dialect], form, path, None)
    return path


def converted(path, folder, dialect, form, model=None, source=None, encoder=False):
    """The file that a conversion makes, and the content hash that it says it has."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / name_of(form)
    return target, convert(prepare(path, Wish(model, source, encoder)), dialect, form, target)


def stored(path, form):
    """What a file holds, by the names in it, with no dialect's help."""
    state = FORMATS[form].read(path)
    return {name: tensor.load() for name, tensor in state.tensors.items() if name != STEPS}


def in_place(found, dialect, weights):
    """Raise AssertionError where a file's tensors are not what the reference pages say of these weights."""
    arrays = {name: tensor.load() for name, tensor in weights.tensors.items()}
    expected = by_hand(dialect, weights.contents, weights.config, arrays)
    if dialect == "flyegle" and weights.contents == "mae":
        token = gray_mask_token(weights.config, found)
        np.testing.assert_array_equal(token, arrays["mask_token"])
        found = {name: a for name, a in found.items() if name not in FLYEGLE_UNUSED and "unmask_embed" not in name}
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array, err_msg=name)
