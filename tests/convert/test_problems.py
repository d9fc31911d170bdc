"""What is said of a checkpoint that cannot be converted: all of it at once, in the file's own names too."""

import numpy as np
import pytest
from checkpoints import CONFIG, MODEL, WEIGHTS, raw_pth, refused

from polymae.backends.presets import model_config
from polymae.cli.convert_weights import main as convert
from polymae.convert.checkpoint import content_hash, open_checkpoint
from polymae.convert.conversion import Wish, prepare
from polymae.convert.dialects import DIALECTS
from polymae.convert.formats import FORMATS
from polymae.convert.probe import write_probe
from polymae.convert.tensors import State, cast, of_array
from polymae.files.errors import Problem

# A dialect that spells everything otherwise, and how it calls what is missing, mis-shaped and transposed below.
IN_THE_FILE = {
    "official": ("", "", ""),
    "huggingface": (
        " (in the file: vit.layernorm.bias)", " (in the file: decoder.decoder_pred.bias)",
        " (in the file: vit.encoder.layer.0.intermediate.dense.weight)",
    ),
    "mindformers-0.8": (
        " (in the file: vit.norm.beta)", " (in the file: decoder_pred.bias)",
        " (in the file: vit.blocks.0.output.mapping.weight)",
    ),
}  # fmt: skip


def tensors_in(dialect, tmp_path, **asked):
    """A probe's tensors by the names in the file, to be spoilt."""
    path = tmp_path / "whole.npz"
    write_probe(dialect, "npz", path, **asked)
    return dict(FORMATS["npz"].read(path).tensors)


def spoilt(tmp_path, tensors, name="spoilt.safetensors"):
    path = tmp_path / name
    path.unlink(missing_ok=True)
    FORMATS["safetensors"].write(path, State(tensors), lambda done: None)
    return path


def problems_of(path, model=MODEL, dialect=None):
    with pytest.raises(Problem) as caught:
        prepare(path, Wish(model, dialect))
    for problem in caught.value.problems:
        assert problem in str(caught.value)
    return list(caught.value.problems)


def test_six_problems_are_one_message(tmp_path, capsys):
    broken = {n: a for n, a in WEIGHTS.items() if n not in ("norm.bias", "mask_token", "blocks.2.mlp.fc2.weight")}
    broken |= {"surplus": np.zeros(3, np.float32), "blocks.3.norm1.weight": np.zeros(48, np.float32)}
    broken["blocks.0.mlp.fc1.weight"] = np.ascontiguousarray(WEIGHTS["blocks.0.mlp.fc1.weight"].T)
    path = raw_pth(tmp_path / "x.pth", broken)
    assert sorted(problems_of(path)) == [
        "missing: blocks.2.mlp.fc2.weight (48, 192)",
        "missing: mask_token (1, 1, 32)",
        "missing: norm.bias (48,)",
        "transposed: blocks.0.mlp.fc1.weight is (48, 192), expected (192, 48); the file stores it the other way round",
        "unexpected: blocks.3.norm1.weight (48,)",
        "unexpected: surplus (3,)",
    ]
    message = refused(capsys, "torch", "-c", path, "-m", MODEL, "-o", tmp_path / "out.pth")
    assert "does not fit (6 problems)" in message
    assert len([line for line in message.splitlines() if line.startswith("  ")]) == 6


def test_a_shape_of_another_model_is_named(tmp_path):
    base = model_config("mae_vit_base_patch16")
    wrong = WEIGHTS | {"norm.bias": np.zeros(base.embed_dim, np.float32)}
    wrong["decoder_pred.bias"] = np.zeros(7, np.float32)
    found = problems_of(raw_pth(tmp_path / "x.pth", wrong))
    assert found[0].startswith("shape: norm.bias is (768,), expected (48,); that is the shape in mae_vit_base_patch16")
    assert found[1] == "shape: decoder_pred.bias is (7,), expected (192,)"


@pytest.mark.parametrize("dialect", IN_THE_FILE)
def test_problems_have_the_names_in_the_file(dialect, tmp_path):
    tensors = tensors_in(dialect, tmp_path)
    absent, short, turned = IN_THE_FILE[dialect]
    own = [text.removeprefix(" (in the file: ").removesuffix(")") for text in (absent, short, turned)]
    if dialect == "official":
        own = ["norm.bias", "decoder_pred.bias", "blocks.0.mlp.fc1.weight"]
    del tensors[own[0]]
    tensors[own[1]] = of_array(np.zeros(7, np.float32))
    tensors[own[2]] = of_array(np.ascontiguousarray(tensors[own[2]].load().T))
    told = absent.replace("decoder_pred.bias", "")
    assert problems_of(spoilt(tmp_path, tensors)) == [
        f"missing: norm.bias (48,){told}",
        "transposed: blocks.0.mlp.fc1.weight is (48, 192), expected (192, 48); the file stores it the other way round"
        f"{turned}",
        f"shape: decoder_pred.bias is (7,), expected (192,){short if own[1] != 'decoder_pred.bias' else ''}",
    ]


def test_a_missing_or_odd_part_of_qkv_is_named(tmp_path):
    at = "vit.encoder.layer.1.attention.attention"
    tensors = tensors_in("huggingface", tmp_path)
    del tensors[f"{at}.key.weight"]
    tensors[f"{at}.value.bias"] = of_array(np.zeros(47, np.float32))
    other = "vit.encoder.layer.2.attention.attention.query.bias"
    tensors[other] = cast(tensors[other], "float64")
    found = problems_of(spoilt(tmp_path, tensors))
    assert f"missing: {at}.key.weight, the rest of blocks.1.attn.qkv.weight" in found
    assert any(p.startswith("shape: ") and f"{at}.value.bias (47,)" in p and "equally large" in p for p in found)
    assert any(p.startswith("dtype: ") and "query.bias float64" in p and "key.bias float32" in p for p in found)
    assert len(found) == 3


def test_a_name_of_the_spec_means_nothing_in_another_dialect(tmp_path):
    tensors = tensors_in("libai", tmp_path)
    mixed = "blocks.1.self_attention.query_key_value.weight"
    tensors["blocks.1.attn.qkv.weight"] = tensors.pop(mixed)
    assert problems_of(spoilt(tmp_path, tensors)) == [
        f"unexpected: blocks.1.attn.qkv.weight (144, 48); the libai dialect has {mixed}"
    ]


def test_an_axis_too_few_is_told(tmp_path):
    tensors = tensors_in("megengine", tmp_path, model="flyegle_mae_vit_test_patch8")
    tensors["unconv.bias"] = of_array(np.zeros(3, np.float32))
    (problem,) = problems_of(spoilt(tmp_path, tensors), "flyegle_" + MODEL)
    assert problem.startswith("shape: unconv.bias (3,) has not the axes of '1 d 1 1'")


def test_what_can_be_read_in_two_ways_lists_both(tmp_path, capsys):
    # The sign of a row is there twice: a dialect like the official one, but for the order of two tensors.
    from dataclasses import replace

    row = DIALECTS["official"]
    swap = {"norm.weight": "norm.bias", "norm.bias": "norm.weight"}
    spellings = {kind: replace(spelling, names={**spelling.names, **swap}) for kind, spelling in row.spellings.items()}
    path = raw_pth(tmp_path / "x.pth", WEIGHTS)
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(DIALECTS, "twin", replace(row, name="twin", spellings=spellings))
        message = refused(capsys, "torch", "-c", path, "-o", tmp_path / "o.pth")
        assert "can be read in more than one dialect: official, timm, polymae, twin. Say which with --from" in message
        assert open_checkpoint(path, "official").hash == content_hash(WEIGHTS)
    mixed = dict(WEIGHTS)
    mixed["blocks.0.norm1.gamma"] = mixed.pop("blocks.0.norm1.weight")
    message = refused(capsys, "torch", "-c", raw_pth(tmp_path / "m.pth", mixed), "-o", tmp_path / "o.pth")
    assert "mixes dialects. It could be official, if not for blocks.0.norm1.gamma" in message


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("dialect", ["official", "huggingface", "mindformers-0.8", "flyegle"])
def test_what_wrappers_put_before_the_names_is_taken_off(prefix, dialect, tmp_path):
    tensors = tensors_in(dialect, tmp_path)
    bare = spoilt(tmp_path, tensors, "bare.safetensors")
    wrapped = spoilt(tmp_path, {prefix + name: tensor for name, tensor in tensors.items()})
    assert open_checkpoint(wrapped).hash == open_checkpoint(bare).hash
    assert open_checkpoint(wrapped).identified.prefix == prefix
    last = next(
        name for name in tensors if name.endswith(("fc2.weight", "output.dense.weight", "output.projection.weight"))
    )
    fewer = {prefix + name: tensor for name, tensor in tensors.items() if name != last}
    model = "flyegle_" + MODEL if dialect == "flyegle" else MODEL
    (problem,) = problems_of(spoilt(tmp_path, fewer), model)
    assert problem.endswith(f"(in the file: {prefix}{last})")


def test_dtypes(tmp_path, capsys):
    whole = {name: of_array(array) for name, array in WEIGHTS.items()}
    wide = spoilt(tmp_path, {name: cast(tensor, "float64") for name, tensor in whole.items()}, "wide.safetensors")
    assert convert(["torch", "-c", str(wide), "-o", str(tmp_path / "w.pth")]) == 0
    assert {t.dtype for t in open_checkpoint(tmp_path / "w.pth").tensors.values()} == {"float64"}
    with pytest.raises(Problem, match=r"holds float64 \(74 tensors.*--dtype float32"):
        open_checkpoint(wide).weights(CONFIG)
    assert convert(["torch", "-c", str(wide), "-o", str(tmp_path / "n.pth"), "--dtype", "float32"]) == 0
    assert open_checkpoint(tmp_path / "n.pth").hash == content_hash(WEIGHTS)
    numbers = whole | {name: of_array(np.zeros(48, np.int64)) for name in ("norm.weight", "norm.bias")}
    numbers["blocks.0.norm1.bias"] = of_array(np.zeros(48, bool))
    found = problems_of(spoilt(tmp_path, numbers))
    assert found == [
        "dtype: blocks.0.norm1.bias is bool, expected one of float32, float16, bfloat16, float64; save as float32",
        "dtype: norm.weight, norm.bias are int64, expected one of float32, float16, bfloat16, float64; save as float32",
    ]
    halves = spoilt(tmp_path, {name: cast(tensor, "bfloat16") for name, tensor in whole.items()})
    message = refused(capsys, "numpy", "-c", halves, "-o", tmp_path / "x.npz")
    assert "cannot hold bfloat16" in message
    assert "--dtype float32" in message


def test_values_that_are_not_finite(tmp_path, capsys):
    bad = WEIGHTS["blocks.1.attn.proj.weight"].copy()
    bad[3, :2], bad[5, 5] = np.nan, -np.inf
    path = raw_pth(tmp_path / "x.pth", WEIGHTS | {"blocks.1.attn.proj.weight": bad})
    for framework, ending in (("torch", ".pth"), ("huggingface", "")):
        message = refused(capsys, framework, "-c", path, "-o", tmp_path / f"o{ending}")
        assert "blocks.1.attn.proj.weight has 2 NaN and 1 Inf among 2,304 values" in message
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]
