"""Converting: which checkpoint a file is, and every problem of it told at once."""

import json
from functools import partial

import numpy as np
import pytest
from checkpoints import CONFIG, ENCODER, ENDINGS, MODEL, WEIGHTS, raw_pth, refused

from polymae.backends.initial import initial_weights
from polymae.backends.naming import Spelling
from polymae.backends.presets import PRESETS, model_config
from polymae.backends.spec import encoder_params, params
from polymae.cli import main as polymae
from polymae.cli.convert_weights import main as convert
from polymae.convert import dialects
from polymae.convert.checkpoint import content_hash, open_checkpoint
from polymae.convert.dialects import Dialect, Sign
from polymae.convert.formats import safetensors
from polymae.convert.tensors import State, Tensor
from polymae.convert.writing import official_checkpoint
from polymae.files.errors import Problem


@pytest.mark.parametrize("name", ["mae_vit_test_patch8", "vit_test_patch8"])
def test_every_framework_to_every_framework(name, tmp_path):
    config = model_config(name)
    weights = initial_weights(config)
    digest = official_checkpoint(tmp_path / "start.pth", config, weights)
    chain = ["megengine", "mindspore", "oneflow", "torch", "mindspore", "megengine", "oneflow", "megengine", "torch"]
    source = tmp_path / "start.pth"
    for i, framework in enumerate(chain):
        target = tmp_path / f"{i}{ENDINGS[framework]}"
        assert convert([framework, "-c", str(source), "-o", str(target)]) == 0
        checkpoint = open_checkpoint(target)
        assert (checkpoint.model, checkpoint.hash) == (name, digest)
        assert checkpoint.dialect == (framework if framework in ("megengine", "mindspore") else "official")
        assert {n: a.tobytes() for n, a in checkpoint.weights(config).items()} == {
            n: a.tobytes() for n, a in weights.items()
        }
        source = target
    assert source.read_bytes() == (tmp_path / "start.pth").read_bytes()


@pytest.mark.parametrize(("pooling", "classes"), [("gap", 10), ("cls", 7)])
def test_classifiers_of_both_poolings(pooling, classes, tmp_path, capsys):
    config = model_config("vit_test_patch8", pooling=pooling, num_classes=classes)
    official_checkpoint(tmp_path / "c.pth", config, initial_weights(config))
    checkpoint = open_checkpoint(tmp_path / "c.pth")
    assert (checkpoint.contents, checkpoint.model, checkpoint.config) == ("classifier", "vit_test_patch8", config)
    assert (
        convert(["megengine", "-m", "vit_test_patch8", "-c", str(tmp_path / "c.pth"), "-o", str(tmp_path / "c.pkl")])
        == 0
    )
    assert open_checkpoint(tmp_path / "c.pkl").hash == checkpoint.hash
    refusal = refused(capsys, "torch", "-c", tmp_path / "c.pth", "-m", MODEL)
    assert (refusal.code, "classifier (vit_test_patch8)" in refusal) == ("does-not-fit", True)


def test_every_preset_is_known_by_its_shapes():
    from polymae.convert.resolve import fitting_models

    for name, config in PRESETS.items():
        shapes = {param.name: param.shape for param in params(config)}
        contents = "mae" if name.startswith("mae") else "classifier"
        assert fitting_models(shapes, contents) == {name: config}
        if contents == "mae":
            shapes = {param.name: param.shape for param in encoder_params(config)}
            assert list(fitting_models(shapes, "encoder")) == [name]


def test_an_encoder_alone(tmp_path, capsys, official):
    official_checkpoint(tmp_path / "e.pth", CONFIG, ENCODER)
    checkpoint = open_checkpoint(tmp_path / "e.pth")
    assert (checkpoint.contents, checkpoint.model) == ("encoder", MODEL)
    message = refused(capsys, "megengine", "-m", MODEL, "-c", tmp_path / "e.pth", "-o", tmp_path / "out.pkl")
    assert "https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_<size>_full.pth" in message
    assert "mae_visualize_vit_<size>.pth" in message
    assert not (tmp_path / "out.pkl").exists()
    for source in (tmp_path / "e.pth", official):  # from a file without a decoder, and from one with
        assert convert(["mindspore", "-c", str(source), "-o", str(tmp_path / "e.ckpt"), "--encoder-only"]) == 0
        assert open_checkpoint(tmp_path / "e.ckpt").hash == content_hash(ENCODER)
    # Where no autoencoder was asked for by name, a file is taken for what it is.
    assert convert(["megengine", "-c", str(tmp_path / "e.pth"), "-o", str(tmp_path / "e.pkl")]) == 0
    assert open_checkpoint(tmp_path / "e.pkl").hash == content_hash(ENCODER)


def test_the_published_file_is_named_by_size(tmp_path):
    config = model_config("mae_vit_base_patch16")
    tiny = {p.name: np.broadcast_to(np.float32(0), p.shape) for p in encoder_params(config)}
    checkpoint = open_checkpoint(raw_pth(tmp_path / "b.pth", tiny))
    with pytest.raises(Problem, match=r"mae_pretrain_vit_base_full\.pth") as caught:
        checkpoint.weights(config)
    assert caught.value.code == "does-not-fit"


def test_all_problems_are_told_at_once(tmp_path):
    broken = dict(WEIGHTS)
    del broken["norm.bias"]
    broken["surplus"] = np.zeros(3, np.float32)
    broken["decoder_pred.bias"] = np.zeros(7, np.float32)
    broken["blocks.0.mlp.fc1.weight"] = WEIGHTS["blocks.0.mlp.fc1.weight"].T
    bad = WEIGHTS["blocks.1.attn.proj.weight"].copy()
    bad[3, :2], bad[5, 5] = np.nan, -np.inf
    broken["blocks.1.attn.proj.weight"] = bad
    with pytest.raises(Problem) as caught:
        open_checkpoint(raw_pth(tmp_path / "x.pth", broken)).weights(CONFIG)
    assert caught.value.code == "does-not-fit"
    assert set(caught.value.problems) == {
        "missing: norm.bias (48,)",
        "unexpected: surplus (3,)",
        "shape: decoder_pred.bias is (7,), expected (192,)",
        "transposed: blocks.0.mlp.fc1.weight is (48, 192), expected (192, 48); the file stores it the other way round",
        "not finite: blocks.1.attn.proj.weight has 2 NaN and 1 Inf among 2,304 values",
    }


def test_large_finite_weights_are_fine(tmp_path):
    large = WEIGHTS | {"norm.weight": np.full(48, 3e38, np.float32)}  # their sum overflows
    assert official_checkpoint(tmp_path / "l.pth", CONFIG, large) == content_hash(large)


def test_other_dtypes(tmp_path, capsys):
    half = {name: (array.view(np.uint32) >> 16).astype(np.uint16) for name, array in WEIGHTS.items()}
    exact = {name: (bits.astype(np.uint32) << 16).view(np.float32) for name, bits in half.items()}
    tensors = {name: Tensor(bits.shape, "bfloat16", partial(np.asarray, bits)) for name, bits in half.items()}
    safetensors.write(tmp_path / "b.safetensors", State(tensors), lambda done: None)
    assert polymae(["inspect", str(tmp_path / "b.safetensors"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dtypes"] == {"bfloat16": 74}
    # It stays what it is, bit for bit; a format that has no such dtype refuses it, and says how to go on.
    assert convert(["torch", "-c", str(tmp_path / "b.safetensors"), "-o", str(tmp_path / "b.pth")]) == 0
    assert open_checkpoint(tmp_path / "b.pth").hash == open_checkpoint(tmp_path / "b.safetensors").hash
    message = refused(capsys, "megengine", "-c", tmp_path / "b.pth", "-o", tmp_path / "b.pkl")
    assert "bfloat16 (cls_token)" in message
    assert "--dtype float32" in message
    assert (
        convert(["megengine", "-c", str(tmp_path / "b.pth"), "-o", str(tmp_path / "b.pkl"), "--dtype", "float32"]) == 0
    )
    assert open_checkpoint(tmp_path / "b.pkl").hash == content_hash(exact)
    assert content_hash(open_checkpoint(tmp_path / "b.pth").weights(CONFIG)) == content_hash(exact)
    # Rounding the exact values gives the same bits again; digits are never lost unasked.
    assert convert(["torch", "-c", str(tmp_path / "b.pkl"), "-o", str(tmp_path / "c.pth"), "--dtype", "bfloat16"]) == 0
    assert open_checkpoint(tmp_path / "c.pth").hash == open_checkpoint(tmp_path / "b.pth").hash
    wide = raw_pth(tmp_path / "d.pth", WEIGHTS | {"norm.bias": np.zeros(48)})
    whole = raw_pth(tmp_path / "i.pth", WEIGHTS | {"norm.bias": np.zeros(48, "i8")})
    for path, code, named in (
        (wide, "not-expressible", "norm.bias.*--dtype float32"),
        (whole, "does-not-fit", "int64"),
    ):
        with pytest.raises(Problem, match=named) as caught:
            open_checkpoint(path).weights(CONFIG)
        assert caught.value.code == code


def test_dialects_are_never_guessed(tmp_path, monkeypatch):
    mixed = dict(WEIGHTS)
    mixed["blocks.0.norm1.gamma"] = mixed.pop("blocks.0.norm1.weight")
    strange = {"layer1.conv.weight": np.zeros((2, 2), np.float32)}
    for file, arrays, named in (
        ("m", mixed, r"official.*blocks\.0\.norm1\.gamma"),
        ("r", strange, r"layer1\.conv\.weight"),
    ):
        with pytest.raises(Problem, match=named) as caught:
            open_checkpoint(raw_pth(tmp_path / f"{file}.pth", arrays))
        assert caught.value.code == "unknown-model"
    # A dialect that would read the same names otherwise makes them ambiguous, and both are named.
    swapped = Spelling(names={"norm.weight": "norm.bias", "norm.bias": "norm.weight"})
    twin = Dialect("twin", "twin", {"mae": swapped}, shows=(Sign(r"blocks\.0\.norm1\.weight"),))
    monkeypatch.setitem(dialects.DIALECTS, "twin", twin)
    path = raw_pth(tmp_path / "t.pth", WEIGHTS)
    with pytest.raises(Problem, match=r"official, timm, polymae, twin.*dialect=") as caught:
        open_checkpoint(path)
    assert caught.value.code == "ambiguous"
    assert open_checkpoint(path, "official").hash == content_hash(WEIGHTS)
    with pytest.raises(Problem) as caught:
        open_checkpoint(path, "klingon")
    assert caught.value.code == "bad-argument"
