"""`polymae diff`: every kind of difference is planted in a checkpoint, and named."""

import json
from dataclasses import replace

import numpy as np
import pytest
from checkpoints import CONFIG, ENCODER, MODEL, WEIGHTS, raw_pth

from polymae.backends.initial import initial_weights
from polymae.backends.presets import model_config
from polymae.cli import main as polymae
from polymae.convert.dialects import DIALECTS
from polymae.convert.difference import describe
from polymae.convert.tensors import Tensor, cast, of_array
from polymae.convert.transform import WeightSet
from polymae.convert.writing import write_weights

RNG = np.random.default_rng(3)
QKV = WEIGHTS["blocks.0.attn.qkv.weight"]
FC1 = WEIGHTS["blocks.1.mlp.fc1.weight"]
PRED = WEIGHTS["decoder_pred.weight"]
THIRDS = QKV.reshape(3, 3, 16, 48)  # parts, heads, width of a head
SCATTERED = RNG.permutation(192)
UP = np.float32(1 + 2**-23)
HALF = cast(of_array(FC1), "bfloat16")
FAR = FC1.copy()
FAR[3, :5] += np.float32(0.25) * np.arange(1, 6, dtype=np.float32)
BROKEN = FC1.copy()
BROKEN[0, 0], BROKEN[1, 1] = np.nan, np.inf
SIGNED = WEIGHTS["blocks.0.norm1.bias"]  # zeros

# Tensor, what it becomes, the kind of the difference, and words that say it.
PLANTED = {
    "another shape": ("decoder_pred.weight", PRED[:, :16], "shape", "(192, 16) in B; other values"),
    "flattened": ("mask_token", WEIGHTS["mask_token"].reshape(32), "shape", "the same values in the same order"),
    "transposed": ("blocks.1.mlp.fc1.weight", FC1.T, "transposed", "(192, 48) in A, (48, 192) in B"),
    "transposed square": (
        "blocks.0.attn.proj.weight", WEIGHTS["blocks.0.attn.proj.weight"].T, "transposed", "transposed"
    ),
    "other axes": (
        "patch_embed.proj.weight", WEIGHTS["patch_embed.proj.weight"].transpose(0, 2, 3, 1), "transposed",
        "axes in the order (0, 2, 3, 1): (48, 3, 8, 8) in A, (48, 8, 8, 3) in B",
    ),
    "q and k": (
        "blocks.0.attn.qkv.weight", np.concatenate([QKV[48:96], QKV[:48], QKV[96:]]), "permuted",
        "rows permuted: k, q, v in place of q, k, v",
    ),
    "interleaved": (
        "blocks.0.attn.qkv.weight", THIRDS.transpose(1, 0, 2, 3).reshape(144, 48), "permuted",
        "interleaved head by head (3 heads)",
    ),
    "interleaved heads of the decoder": (
        "decoder_blocks.1.attn.qkv.weight",
        WEIGHTS["decoder_blocks.1.attn.qkv.weight"].reshape(3, 4, 8, 32).swapaxes(0, 1).reshape(96, 32), "permuted",
        "interleaved head by head (4 heads)",
    ),
    "taken apart": (
        "blocks.0.attn.qkv.weight", QKV.reshape(3, 3, 16, 48).swapaxes(0, 1).reshape(144, 48), "permuted", "(3 heads)"
    ),
    "pixels": (
        "decoder_pred.weight", PRED.reshape(8, 8, 3, 32).transpose(2, 0, 1, 3).reshape(192, 32), "permuted",
        "rows permuted: pixels from row, column, channel to channel, row, column",
    ),
    "reversed": ("blocks.1.mlp.fc1.weight", FC1[::-1], "permuted", "rows reversed"),
    "scattered rows": ("blocks.1.mlp.fc1.weight", FC1[SCATTERED], "permuted", "of 192 moved, the first "),
    "columns": ("blocks.1.mlp.fc1.weight", FC1[:, ::-1], "permuted", "columns reversed"),
    "positions": (
        "pos_embed", np.roll(WEIGHTS["pos_embed"], 1, 1), "permuted",
        "rows permuted: 17 of 17 moved, the first 0, where 16 was",
    ),
    "channels": (
        "patch_embed.proj.weight", WEIGHTS["patch_embed.proj.weight"][:, [2, 1, 0]], "permuted",
        "slices along axis 1 reversed",
    ),
    "scaled": ("blocks.1.mlp.fc1.weight", FC1 * np.float32(0.3), "scaled", "B is A times 0.3"),
    "sign": ("blocks.1.mlp.fc1.weight", -FC1, "sign", "the other one, everywhere"),
    "shifted": ("decoder_pred.weight", PRED + np.float32(0.5), "shifted", "B is A plus 0.5"),
    "roundoff": ("blocks.1.mlp.fc1.weight", FC1 * UP, "roundoff", "units of 2^-24"),
    "rounded": ("blocks.1.mlp.fc1.weight", cast(HALF, "float32").load(), "rounded", "B is A rounded to bfloat16"),
    "zeros": ("blocks.0.norm1.bias", -SIGNED, "sign of zero", "zeros have another sign"),
    "other values": ("blocks.1.mlp.fc1.weight", FAR, "values", "5 of 9,216 differ, by at most 1.25"),
    "not finite": ("blocks.1.mlp.fc1.weight", BROKEN, "not finite", "0 values in A and 2 in B are NaN or infinite"),
    "half": ("blocks.1.mlp.fc1.weight", FC1.astype(np.float16), "dtype", "the same after rounding to float16"),
    "double": ("blocks.1.mlp.fc1.weight", FAR.astype(np.float64), "dtype", "5 of 9,216 differ"),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return raw_pth(tmp_path_factory.mktemp("whole") / "a.pth", WEIGHTS)


def diffed(capsys, *arguments):
    """Exit status and the facts of `polymae diff --json`."""
    status = polymae(["diff", *map(str, arguments), "--json"])
    return status, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_difference_is_named(planted, whole, tmp_path, capsys):
    name, array, kind, words = PLANTED[planted]
    other = raw_pth(tmp_path / "b.pth", WEIGHTS | {name: np.ascontiguousarray(array)})
    status, facts = diffed(capsys, whole, other)
    assert (status, facts["same"], facts["tensors"]) == (1, False, 74)
    assert [(d["name"], d["kind"]) for d in facts["differences"]] == [(name, kind)]
    assert words in facts["differences"][0]["said"]
    assert polymae(["diff", str(other), str(whole)]) == 1  # and the other way round
    assert capsys.readouterr().out.startswith(f"different weights: 1 of 74 tensors differ (1 {kind})\n  {name}: ")


def test_missing_ones_and_many(whole, tmp_path, capsys):
    fewer = {n: a for n, a in WEIGHTS.items() if n != "norm.bias"}
    path = raw_pth(tmp_path / "b.pth", fewer | {"surplus": np.zeros(3, np.float32)})
    status, facts = diffed(capsys, whole, path, "-m", MODEL)
    assert status == 1
    assert [(d["name"], d["kind"]) for d in facts["differences"]] == [
        ("norm.bias", "missing in B"), ("surplus", "missing in A")
    ]  # fmt: skip
    another = raw_pth(tmp_path / "c.pth", initial_weights(CONFIG, seed=7))
    assert polymae(["diff", str(whole), str(another)]) == 1
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 22
    assert "more (--json lists them all)" in out
    assert polymae(["diff", str(whole), str(raw_pth(tmp_path / "e.pth", ENCODER))]) == 1
    assert "missing in B" in capsys.readouterr().out


def test_the_same_weights_in_any_dialect_and_format(whole, tmp_path, capsys):
    weights = WeightSet(CONFIG, "mae", {name: of_array(array) for name, array in WEIGHTS.items()})
    cases = [
        ("megengine", "megengine", "b.pkl"),
        ("libai", "oneflow", "b"),
        ("huggingface", "safetensors", "b.safetensors"),
    ]
    for dialect, form, name in [*cases, ("mindformers-0.3-trained", "mindspore", "b.ckpt")]:
        path = tmp_path / dialect / name
        path.parent.mkdir()
        write_weights(weights, DIALECTS[dialect], form, path, None)
        spelling = ["--from-b", dialect] if DIALECTS[dialect].explicit else []
        status, facts = diffed(capsys, whole, path, *spelling)
        assert (status, facts["same"], facts["differences"]) == (0, True, [])
        assert facts["hashes"][0] == facts["hashes"][1]
    assert polymae(["diff", str(whole), str(whole)]) == 0
    assert capsys.readouterr().out.startswith("the same weights: 74 tensors, hash ")
    # Read in the wrong dialect, only what that dialect spells otherwise differs.
    status, facts = diffed(capsys, whole, path, "--from-b", "mindformers-0.3")
    assert status == 1
    assert {d["name"] for d in facts["differences"]} == {"decoder_pred.weight"}  # the bias is zero
    assert "channel, row, column" in facts["differences"][0]["said"]


def test_what_cannot_be_compared(whole, tmp_path, capsys):
    assert polymae(["diff", str(whole), str(tmp_path / "none.pth")]) == 2
    assert "no file" in capsys.readouterr().err
    config = model_config("mae_vit_test_patch8", depth=1)
    path = tmp_path / "own.npz"
    tensors = {name: of_array(array) for name, array in initial_weights(config).items()}
    write_weights(WeightSet(config, "mae", tensors), DIALECTS["libai"], "npz", path, None)
    assert polymae(["diff", str(path), str(path)]) == 2
    assert "say with -m what it is" in capsys.readouterr().err


def test_only_one_tensor_of_each_is_in_memory():
    alive, most = [0], [0]

    class Counted(np.ndarray):
        def __del__(self):
            alive[0] -= 1

    def load():
        array = np.zeros((4, 4), np.float32).view(Counted)
        array.flags.writeable = False
        alive[0] += 1
        most[0] = max(most[0], alive[0])
        return array

    from polymae.convert.difference import differences

    counted = {f"tensor.{i}": Tensor((4, 4), "float32", load) for i in range(20)}
    others = {name: of_array(np.ones((4, 4), np.float32)) for name in counted}
    assert len(list(differences(counted, others))) == 20
    assert most[0] <= 2


def test_bfloat16_is_compared_by_value():
    config = replace(CONFIG)
    same, other = HALF.load().copy(), HALF.load().copy()
    other[0, 0] ^= 1
    a, b = (Tensor(same.shape, "bfloat16", lambda array=array: array) for array in (same, other))
    assert describe("blocks.1.mlp.fc1.weight", a, a, config) is None
    found = describe("blocks.1.mlp.fc1.weight", a, b, config)
    assert found.kind == "values"
    assert "1 of 9,216 differ" in found.said
