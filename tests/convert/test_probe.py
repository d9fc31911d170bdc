"""Probe checkpoints: what they hold, that they catch a wrong row of the table of dialects, and the command."""

from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from by_hand import STEPS, gray_mask_token
from matrix import as_model, in_place

from polymae.backends.initial import sinusoid_table
from polymae.backends.presets import model_config
from polymae.backends.spec import params
from polymae.cli import main as polymae
from polymae.cli.convert_weights import main as convert
from polymae.convert.dialects import DIALECTS
from polymae.convert.probe import check, first_numbers, parts_of, probe_tensors, write_probe
from polymae.convert.tensors import of_array
from polymae.convert.transform import WeightSet
from polymae.convert.writing import write_weights

KINDS = [(dialect.name, kind) for dialect in DIALECTS.values() for kind in dialect.spellings]


@pytest.mark.parametrize(("dialect", "kind"), KINDS)
def test_the_file_is_what_the_reference_pages_say(dialect, kind, tmp_path):
    path = tmp_path / "p.safetensors"
    weights = write_probe(dialect, "safetensors", path, contents=kind)
    assert not path.with_name("p.safetensors.polymae.json").exists()
    found = safetensors.numpy.load_file(path)  # with a reader that is not ours
    found.pop(STEPS, None)
    in_place(found, dialect, weights)
    count, wrong = check(path, as_model(weights.config) if kind != "encoder" else None, dialect)
    assert not wrong
    assert count >= sum(np.prod(tensor.shape) for tensor in weights.tensors.values())


def test_every_element_is_its_own_number():
    config = model_config("mae_vit_test_patch8")
    arrays = [tensor.load() for tensor in probe_tensors(config, "mae").values()]
    numbers = np.concatenate([array.reshape(-1) for array in arrays])
    assert numbers.dtype == np.float32
    assert np.array_equal(numbers, np.arange(128_992))
    encoder = probe_tensors(config, "encoder")  # the numbers stay those of the whole model
    assert float(encoder["norm.bias"].load()[-1]) == 95_039 + 32 + 17 * 32


def test_what_flyegle_derives_has_the_values_of_its_program(tmp_path):
    weights = write_probe("flyegle", "pth", tmp_path / "p.pth")
    token = weights.tensors["mask_token"].load().reshape(-1)
    start = first_numbers(weights.config)["mask_token"]
    assert np.array_equal(token, np.repeat([start, start + 16], 16))  # 16 patches
    assert np.array_equal(weights.tensors["pos_embed"].load(), sinusoid_table(48, 17))
    path = tmp_path / "p.safetensors"
    write_probe("flyegle", "safetensors", path)
    assert np.array_equal(gray_mask_token(weights.config, safetensors.numpy.load_file(path)).reshape(-1), token)


def test_a_large_model_takes_two_parts():
    config = model_config("mae_vit_base_patch16")
    assert parts_of(config) == ("low", "high")
    name, start = "decoder_pred.bias", first_numbers(config)["decoder_pred.bias"]
    low, high = (probe_tensors(config, "mae", part)[name].load().astype(np.int64) for part in parts_of(config))
    assert start > 2**24
    assert np.array_equal(low + high * 2**24, np.arange(start, start + 768))
    assert start + 768 == sum(param.size for param in params(config))


def _with_layout(dialect, kind, layouts):
    row = DIALECTS[dialect]
    spelling = row.spellings[kind]
    return replace(row, spellings={**row.spellings, kind: replace(spelling, layouts={**spelling.layouts, **layouts})})


def _with_names(dialect, kind, names=(), block=()):
    row = DIALECTS[dialect]
    spelling = row.spellings[kind]
    spelling = replace(spelling, names={**spelling.names, **dict(names)}, block={**spelling.block, **dict(block)})
    return replace(row, spellings={**row.spellings, kind: spelling})


# Dialect, the row with a mistake in it, and what the check says of the first tensor that it puts in a wrong place.
_ATTENTION = "attention.attention"
_QKV = {"attn.qkv.weight": "(t h s) d -> (h s t) d"}
_PIXELS = {"decoder_pred.weight": "(p q c) d -> (c q p) d", "decoder_pred.bias": "(p q c) -> (c q p)"}
MISTAKES = {
    "heads interleaved otherwise": (_with_layout("libai", "mae", _QKV), "blocks.0.attn.qkv.weight: rows permuted"),
    "pixels in another order": (_with_layout("mindformers-0.3-trained", "mae", _PIXELS), "decoder_pred.weight: rows permuted"),
    "a square matrix not transposed": (
        _with_layout("mindformers-0.8", "mae", {"attn.proj.weight": None}), "blocks.0.attn.proj.weight: transposed"
    ),
    "q and k swapped": (
        _with_names("huggingface", "mae", block={"attn.qkv": tuple(f"{_ATTENTION}.{n}" for n in ("key", "query", "value"))}),
        "blocks.0.attn.qkv.weight: rows permuted: k, q, v in place of q, k, v",
    ),
    "norms swapped": (
        _with_names("huggingface-v5", "mae", block={"norm1": "layernorm_after", "norm2": "layernorm_before"}),
        "blocks.0.norm1.weight: B is A plus",
    ),
    "scale and shift swapped": (
        _with_names("flyegle", "mae", {"patch_norm.weight": "patch_norm.beta", "patch_norm.bias": "patch_norm.gamma"}),
        "patch_norm.weight: B is A plus 192; these are the elements of patch_norm.bias",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_row_is_caught(mistake, tmp_path, monkeypatch):
    wrong, sentence = MISTAKES[mistake]
    with monkeypatch.context() as patched:
        patched.setitem(DIALECTS, wrong.name, wrong)
        weights = write_probe(wrong.name, "safetensors", tmp_path / "p.safetensors")
        # Going there and back notices nothing: the way back is the mirror image of the mistake.
        assert not check(tmp_path / "p.safetensors", dialect=wrong.name)[1]
    with pytest.raises(AssertionError):
        in_place(safetensors.numpy.load_file(tmp_path / "p.safetensors"), wrong.name, weights)
    found = check(tmp_path / "p.safetensors", dialect=wrong.name)[1]
    assert f"{found[0].name}: {found[0].said}".startswith(sentence)


def test_a_wrong_place_is_described(tmp_path, capsys):
    config = model_config("mae_vit_test_patch8")
    tensors = probe_tensors(config, "mae")
    swapped = {**tensors, "norm.weight": tensors["norm.bias"]}
    swapped["decoder_pred.weight"] = of_array(tensors["decoder_pred.weight"].load()[::-1].copy())
    swapped["pos_embed"] = of_array(tensors["pos_embed"].load() + np.float32(0.5))
    write_weights(WeightSet(config, "mae", swapped), DIALECTS["libai"], "npz", tmp_path / "w.npz", None)
    assert polymae(["probe", "--check", str(tmp_path / "w.npz")]) == 1
    out = capsys.readouterr().out
    assert out.startswith("3 tensors are not as they must be")
    assert "norm.weight: B is A plus 48; these are the elements of norm.bias\n" in out
    assert "decoder_pred.weight: rows reversed\n" in out
    assert "pos_embed: B is A plus 0.5\n" in out


def test_the_command_and_a_chain_of_conversions(tmp_path, capsys):
    first = tmp_path / "first.ckpt"
    asked = ["probe", "--dialect", "mindformers-0.3-trained", "--format", "mindspore", "-o", str(first)]
    assert polymae(asked) == 0
    assert "mae, 74 tensors, 128,992 elements" in capsys.readouterr().out
    hf, oneflow, alone = tmp_path / "hf", tmp_path / "of", tmp_path / "alone.safetensors"
    assert convert(["huggingface", "-c", str(first), "--from", "mindformers-0.3-trained", "-o", str(hf)]) == 0
    assert convert(["oneflow", "-c", str(hf), "--to", "libai", "-o", str(oneflow)]) == 0
    assert convert(["timm", "-c", str(oneflow), "--encoder-only", "-o", str(alone)]) == 0
    capsys.readouterr()
    for path, count in ((hf, "128,992"), (oneflow, "128,992"), (alone, "95,040")):
        assert polymae(["probe", "--check", str(path)]) == 0
        assert capsys.readouterr().out == f"every one of {count} elements is in its place\n"
    assert polymae(["probe", "--check", str(first)]) == 1  # the file does not show that 0.3 trained it
    assert "decoder_pred.weight: rows permuted: pixels from row, column, channel to" in capsys.readouterr().out
    assert polymae(["probe", "--check", str(first), "--from", "mindformers-0.3-trained"]) == 0
    half = str(tmp_path / "half.safetensors")
    assert convert(["safetensors", "-c", str(hf), "--dtype", "float16", "-o", half]) == 2
    assert "do not fit float16" in capsys.readouterr().err  # 65504 is its largest


def test_what_cannot_be_probed(tmp_path, capsys):
    for arguments, message in (
        (["--dialect", "official"], "--format, -o must be given"),
        (["--dialect", "klingon", "--format", "npz", "-o", "w.npz"], "Unknown dialect 'klingon'"),
        (["--dialect", "official", "--format", "tar", "-o", "w.npz"], "Unknown format 'tar'"),
        (["--dialect", "official", "--format", "pth", "-o", "w.npz"], "does not end as pth files do"),
        (["--dialect", "timm", "--format", "pth", "--contents", "mae", "-o", "w.pth"], "cannot be written in the timm"),
        (
            ["--dialect", "timm", "--format", "pth", "-m", "vit_test_patch8", "--contents", "mae", "-o", "w.pth"],
            "has no mae",
        ),
        (["--dialect", "libai", "--format", "pth", "--part", "high", "-o", "w.pth"], "fewer than 2^24"),
        (["--check", "none.pth"], "no file"),
    ):
        at = [str(tmp_path / a) if a.startswith(("w.", "none.")) else a for a in arguments]
        assert polymae(["probe", *at]) == 2
        assert message in capsys.readouterr().err
