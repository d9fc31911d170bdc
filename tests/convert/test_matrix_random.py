"""Conversions of random models with random weights, in random formats and dtypes, there and back; what notices say."""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from drawn import examples
from hypothesis import example, given
from hypothesis import strategies as st
from matrix import WRITTEN, as_model, converted, in_place, name_of, refusal, sizes, stored, written

from polymae.backends.config import ConfigError, MAEConfig, ViTConfig
from polymae.backends.initial import sinusoid_table
from polymae.cli import main as polymae
from polymae.cli.convert_weights import main as convert
from polymae.convert.checkpoint import open_checkpoint
from polymae.convert.dialects import DIALECTS, expected_params
from polymae.convert.formats import FORMATS
from polymae.convert.hashing import hash_tensors
from polymae.convert.huggingface import read_config, write_config
from polymae.convert.probe import write_probe
from polymae.convert.tensors import cast, of_array
from polymae.convert.transform import WeightSet

HOLDS_BFLOAT16 = ("pth", "safetensors", "shards", "mindspore")


@st.composite
def models(draw):
    """A configuration and a kind of file that it can have."""
    heads, patch, rows = (draw(st.integers(1, n)) for n in (4, 4, 3))
    columns = draw(
        st.one_of(st.just(rows), st.integers(1, 3))
    )  # half the dialects are of squares, and of three channels
    shared = {
        "patch_size": patch,
        "img_size": (patch * rows, patch * columns),
        "in_chans": draw(st.one_of(st.just(3), st.integers(2 if patch == 1 else 1, 4))),  # one value has no variance
        "num_heads": heads,
        "embed_dim": 4 * heads * draw(st.integers(1, 3)),
        "depth": draw(st.integers(1, 3)),
        "mlp_ratio": draw(st.sampled_from([0.5, 1.0, 4.0, 2.6667, 1.3])),
        "norm_eps": draw(st.sampled_from([1e-6, 1e-5, 1e-12])),
        "block_norm_eps": draw(st.sampled_from([None, 1e-5])),
        "positions": draw(st.sampled_from(["1d", "2d"])),
    }
    if draw(st.booleans()):
        heads = draw(st.integers(1, 4))
        own = {
            "decoder_embed_dim": 4 * heads * draw(st.integers(1, 3)), "decoder_num_heads": heads,
            "decoder_depth": draw(st.integers(1, 3)), "decoder_norm": draw(st.booleans()),
            "head": draw(st.sampled_from(["linear", "linear", "conv"])), "norm_pix_loss": draw(st.booleans()),
        }  # fmt: skip
        return MAEConfig(**shared, **own), draw(st.sampled_from(["mae", "mae", "encoder"]))
    pooling = draw(st.sampled_from(["gap", "cls", "mean"]))
    config = ViTConfig(**shared, pooling=pooling, num_classes=draw(st.integers(1, 6)))
    return config, "headless" if pooling == "gap" and draw(st.booleans()) else "classifier"


def random_weights(config, contents, dtype, seed):
    """Noise, but for what FlyEgle's program derives: there, what it would."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for param in expected_params(config, contents):
        array = rng.standard_normal(param.shape).astype(np.float32)
        if param.role == "position" and config.positions == "1d":
            array = sinusoid_table(param.shape[2], param.shape[1])
        if param.name == "mask_token" and getattr(config, "head", "") == "conv":
            array = array[..., np.arange(param.shape[2]) // config.num_patches]
        tensors[param.name] = cast(of_array(array), dtype)
    return WeightSet(config, contents, tensors)


def there_and_back(config, contents, dtype, seed, a, form, between):
    """A file of dialect a in a format, to each of other dialects and formats in turn, and back."""
    weights = random_weights(config, contents, dtype, seed)
    digest = hash_tensors(weights.tensors).content
    folder = Path(tempfile.mkdtemp())
    try:
        first = written(folder / "first", weights, a, form)
        in_place(stored(first, form), a, weights)
        there, known = first, (as_model(config), a, contents == "encoder")
        for number, (b, other) in enumerate(between):
            there, said = converted(there, folder / f"there{number}", b, other, *known)
            assert said == digest
            in_place(stored(there, other), b, weights)
            known = ()  # what the first one was is not asked for again
        back, said = converted(there, folder / "back", a, form)
        assert said == digest
        assert sizes(open_checkpoint(back).config) == sizes(config)
        if FORMATS[form].HAS_ROOM:
            in_place(stored(back, form), a, weights)
        else:
            assert back.read_bytes() == first.read_bytes()
    finally:
        shutil.rmtree(folder)


@examples(40)
@given(model=models(), data=st.data(), seed=st.integers(0, 2**32))
def test_random_models_there_and_back(model, data, seed):
    config, contents = model
    dtype = data.draw(st.sampled_from(["float32", "float32", "float16", "bfloat16"]))
    weights = random_weights(config, contents, dtype, seed)
    able = [name for name in DIALECTS if not refusal(name, weights) and not (name == "flyegle" and dtype != "float32")]
    forms = [form for form in WRITTEN if dtype != "bfloat16" or form in HOLDS_BFLOAT16]
    kinds = st.tuples(st.sampled_from(able), st.sampled_from(forms))
    there_and_back(config, contents, dtype, seed, *data.draw(kinds), data.draw(st.lists(kinds, min_size=1, max_size=3)))


SMALL = {"img_size": 4, "patch_size": 2, "embed_dim": 12, "depth": 1, "num_heads": 3}
SMALL_MAE = {**SMALL, "decoder_embed_dim": 24, "decoder_depth": 1, "decoder_num_heads": 2}
# What the random test found, or would find after long: a config.json says of an encoder which decoder it has not, and of a
# ratio which hidden widths it gives.
FOUND = [
    (MAEConfig(**SMALL_MAE, head="conv"), "encoder", "huggingface", "official", "shards", "pth"),
    (MAEConfig(**SMALL_MAE, head="conv"), "encoder", "official", "huggingface", "pth", "shards"),
    (MAEConfig(**SMALL_MAE, decoder_norm=False, norm_pix_loss=True), "encoder", "huggingface", "timm", "shards", "shards"),
    (MAEConfig(**SMALL_MAE, mlp_ratio=1.3), "mae", "huggingface", "official", "shards", "pth"),
    (MAEConfig(**SMALL_MAE, mlp_ratio=1.3), "mae", "megengine", "huggingface-v5", "megengine", "shards"),
    (MAEConfig(**SMALL_MAE, mlp_ratio=1.3), "encoder", "huggingface", "polymae", "shards", "npz"),
    (ViTConfig(**SMALL, mlp_ratio=1.3, pooling="cls", num_classes=3), "classifier", "huggingface", "timm", "shards", "pth"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "contents", "a", "b", "form", "other"), FOUND)
def test_what_was_found_there_and_back(config, contents, a, b, form, other):
    there_and_back(config, contents, "float32", 0, a, form, [(b, other)])


@examples(25)
@given(hidden=st.integers(1, 5000), width=st.integers(1, 1300).map(lambda n: 4 * n))
def test_a_hidden_width_survives_its_ratio(hidden, width):
    from polymae.convert.huggingface import _ratio

    try:
        assert MAEConfig(embed_dim=width, num_heads=1, mlp_ratio=_ratio(hidden, width)).mlp_dim(width) == hidden
    except ConfigError as problem:
        pytest.fail(str(problem))


WIDTHS = st.integers(1, 1300).map(lambda n: 4 * n)


@examples(100)
@given(width=WIDTHS, decoder=WIDTHS, ratio=st.floats(0.25, 10))
@example(width=12, decoder=24, ratio=1.3)
@example(width=24, decoder=12, ratio=1.3)
def test_both_hidden_widths_survive_a_config_json(width, decoder, ratio):
    config = MAEConfig(embed_dim=width, num_heads=1, decoder_embed_dim=decoder, decoder_num_heads=1, mlp_ratio=ratio)
    again, _ = read_config(write_config(config, "mae", {}, "float32", None), "mae", "config.json")
    assert [again.mlp_dim(dim) for dim in (width, decoder)] == [config.mlp_dim(dim) for dim in (width, decoder)]


# From, to, kind of file, and what must be said.
NOTICES = [
    ("libai", "official", "mae", "inside the blocks: these weights are for 1e-05, official computes with 1e-06"),
    ("official", "libai", "mae", "inside the blocks: these weights are for 1e-06, libai computes with 1e-05"),
    ("mindformers-0.8", "official", "mae", "for its tanh approximation, official computes with the exact one"),
    ("mindformers-0.8", "official", "mae", "these weights are for biased, official computes with unbiased"),
    ("mindformers-0.8", "official", "mae", "these weights are for float16 in linear layers, official computes with float32"),
    ("mindcv", "timm", "classifier", "for its tanh approximation, timm computes with the exact one"),
    ("libai", "polymae", "classifier", "for one on the class token name the dialect: libai-cls"),
    ("libai", "polymae", "mae", "3 heads, 4 in the decoder, which the file does not show"),
    ("huggingface", "polymae", "mae", "there is no config.json beside first.npz"),
    ("official", "huggingface", "mae", "a single file has no config.json"),
    ("megengine", "official", "mae", "MAE-MegEngine's own program"),
    ("mindformers-0.3", "official", "mae", "for those name the dialect: mindformers-0.3-trained"),
    ("libai", "official", "mae", "position tables: these weights are for trained ones"),
    ("flyegle", "polymae", "mae", "32x32 pixels"),
    ("official", "mindspore", "mae", "3 heads, 4 in the decoder, which no file shows"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "target", "kind", "words"), NOTICES)
@pytest.mark.parametrize("form", ["safetensors", "pth"])  # with the provenance inside, and beside
def test_what_would_be_computed_otherwise_is_said_and_recorded(source, target, kind, words, form, tmp_path, capsys):
    first, out = tmp_path / "first.npz", tmp_path / name_of(form)
    write_probe(source, "npz", first, contents=kind)
    arguments = ["-c", str(first), "--from", source, "--to", target, "--format", form, "-o", str(out)]
    assert convert(["torch", *arguments]) == 0
    notices = [line for line in capsys.readouterr().out.splitlines() if line.startswith("notice ")]
    assert any(words in line for line in notices)
    beside = out.with_name(f"{out.name}.polymae.json")
    assert beside.exists() == (form == "pth")
    recorded = open_checkpoint(out).provenance
    assert [f"notice {sentence}" for sentence in recorded.notices] == notices
    assert recorded.source["dialect"] == source
    assert recorded.hash == recorded.source["hash"] == open_checkpoint(out).hash
    assert polymae(["inspect", str(out)]) == 0
    assert words in capsys.readouterr().out


def test_hugging_faces_usual_eps_is_said(tmp_path, capsys):
    folder, out = tmp_path / "hf", tmp_path / "out.pth"
    write_probe("huggingface", "shards", folder)
    config = json.loads((folder / "config.json").read_text())
    assert config["layer_norm_eps"] == 1e-6
    del config["layer_norm_eps"]  # then transformers takes 1e-12
    (folder / "config.json").write_text(json.dumps(config | {"hidden_act": "gelu_new"}))
    assert convert(["torch", "-c", str(folder), "-o", str(out), "--to", "official"]) == 0
    said = capsys.readouterr().out
    for words in (
        "final norms: these weights are for 1e-12, official computes with 1e-06",
        "GELU: these weights are for its",
    ):
        assert words in said
        assert any(words in sentence for sentence in open_checkpoint(out).provenance.notices)
    assert convert(["torch", "-c", str(folder), "-o", str(out)]) == 0  # our own program takes it from the provenance
    assert "is built otherwise by default: these weights are for norm_eps=1e-12," in capsys.readouterr().out
    assert open_checkpoint(out).config.norm_eps == 1e-12
