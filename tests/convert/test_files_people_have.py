"""Files as people have them: state dicts under other keys, in wrappers, as parts of larger models, beside strangers' classes.

Each kind was met in a public report of a bug; one more of each kind here was made by hand.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import CONFIG, MODEL, WEIGHTS, refuses
from untested import require

from polymae.cli import main
from polymae.cli.convert_weights import main as convert
from polymae.convert.checkpoint import content_hash, open_checkpoint
from polymae.convert.conversion import Wish, prepare
from polymae.files.errors import Problem
from polymae.hub import load

HASH = content_hash(WEIGHTS)
ENCODER = {n: a for n, a in WEIGHTS.items() if not n.startswith(("decoder_", "mask_token"))}


def saved(path: Path, content: Any) -> Path:
    """A pickle of arrays, as megengine.save writes it: what a file holds matters here, not how."""
    path.write_bytes(pickle.dumps(content, 4))
    return path


def within(prefix: str, weights: Any = WEIGHTS) -> dict[str, Any]:
    return {prefix + name: array for name, array in weights.items()}


def stand_in(monkeypatch: pytest.MonkeyPatch, module: str, name: str, **state: Any) -> Any:
    """An object of a class that only the pickle's writer has."""
    parts = module.split(".")
    for i in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:i]), types.ModuleType(".".join(parts[:i])))
    made = type(name, (), {"__module__": module})
    setattr(sys.modules[module], name, made)
    found = made()
    found.__dict__.update(state)
    return found


# Where the state dict lies

KEYS = {
    "PyTorch's tutorial": {"model_state_dict": WEIGHTS, "optimizer_state_dict": {}, "loss": np.float32(0.4)},
    "DeepSpeed": {"module": WEIGHTS, "optimizer": None, "param_shapes": [{"cls_token": (1, 1, 48)}]},
    "somebody's key": {"network": WEIGHTS, "step": 3},
    "two keys deep": {"app": {"model": WEIGHTS, "optimizer": {"state": {0: {"exp_avg": np.ones(3, np.float32)}}}}},
    "with an average of it": {"model": WEIGHTS, "model_ema": {n: 0.5 * a for n, a in WEIGHTS.items()}},
    "tensors beside it": {"state_dict": WEIGHTS, "rng_state": np.zeros(5, np.uint8)},
}  # fmt: skip


@pytest.mark.parametrize("kind", KEYS)
def test_a_state_dict_under_any_key(kind: str, tmp_path: Path) -> None:
    assert open_checkpoint(saved(tmp_path / "w.pkl", KEYS[kind])).hash == HASH


def test_what_zero_3_and_paddle_leave_is_named(tmp_path: Path) -> None:
    emptied = {name: np.zeros(0, np.float32) for name in WEIGHTS}
    with refuses("unsupported", match=r"zero_to_fp32\.py"):
        open_checkpoint(saved(tmp_path / "z.pkl", {"module": emptied}))
    with refuses("unsupported", match=r"paddle\.load"):
        open_checkpoint(saved(tmp_path / "p.pdparams", {**WEIGHTS, "StructuredToParameterName@@": {"a": "b"}}))


# Classes that are not here

UNKNOWN = (("mmengine.logging", "HistoryBuffer"), ("omegaconf.dictconfig", "DictConfig"), ("my.training", "Options"))


@pytest.mark.parametrize(("module", "name"), UNKNOWN)
def test_an_unknown_class_beside_the_weights_is_told(
    module: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    beside = stand_in(monkeypatch, module, name, values=[1, 2])
    path = saved(tmp_path / "w.pkl", {"model": WEIGHTS, "log": beside, "callbacks": {type(beside): {"best": 0.1}}})
    assert convert(["numpy", "-c", str(path), "-o", str(tmp_path / "w.npz")]) == 0
    assert open_checkpoint(tmp_path / "w.npz").hash == HASH
    said = capsys.readouterr().out
    assert f"not known here and was not looked up: {module}.{name}" in said


def test_a_whole_pickled_model_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = stand_in(monkeypatch, "timm.models.vision_transformer", "VisionTransformer", training=True)
    with refuses(
        "unsupported", match=r"whole timm\.models\.vision_transformer\.VisionTransformer object under 'model'"
    ):
        open_checkpoint(saved(tmp_path / "w.pkl", {"model": model, "epoch": 1}))
    with refuses("not-a-checkpoint", match=r"a single timm\.models\.vision_transformer\.VisionTransformer"):
        open_checkpoint(saved(tmp_path / "v.pkl", model))


def pickle_of(module: str, name: str) -> bytes:
    """A dict of the weights with what a call of this name with no arguments gives beside them."""
    call = b"c" + f"{module}\n{name}\n".encode() + b")R"
    return b"\x80\x04}(\x8c\x05model" + pickle.dumps(WEIGHTS, 4)[2:-1] + b"\x8c\x01x" + call + b"u."


RUN = (
    ("os", "system"), ("builtins", "eval"), ("builtins", "getattr"), ("subprocess", "Popen"), ("runpy", "run_path"),
    ("torch.hub", "load"), ("torch.serialization", "load"), ("numpy.testing._private.utils", "runstring"),
    ("pip._internal", "main"), ("importlib", "import_module"), ("mine.Model", "__reduce__"), ("ctypes", "CDLL"),
    ("torch.jit._serialization", "load"), ("commands", "getoutput"),
)  # fmt: skip


@pytest.mark.parametrize(("module", "name"), RUN)
def test_what_runs_code_is_refused_and_not_called_an_attack(module: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pkl"
    path.write_bytes(pickle_of(module, name))
    with refuses("runs-code", match="refused to load .*nothing in it was run here") as problem:
        open_checkpoint(path)
    assert "attack" not in str(problem.value)


def test_the_same_pickle_is_read_where_the_name_only_holds_values(tmp_path: Path) -> None:
    path = tmp_path / "w.pkl"
    for module, name in (("decimal", "Decimal"), ("datetime", "datetime"), ("lightning.fabric", "AttributeDict")):
        path.write_bytes(pickle_of(module, name))
        assert open_checkpoint(path).hash == HASH
    assert open_checkpoint(path).unknown == ("lightning.fabric.AttributeDict",)


# Parts of larger models

PREFIXES = (
    "vit_mae.", "learner.online.net.", "model._orig_mod.", "module.model.module.", "_fsdp_wrapped_module.net.", "a.b.c.d."
)  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
def test_any_prefix_that_all_names_share_comes_off(prefix: str, tmp_path: Path) -> None:
    found = open_checkpoint(saved(tmp_path / "w.pkl", within(prefix)))
    assert (found.hash, found.identified.prefix) == (HASH, prefix)


def test_wrappers_inside_of_names_come_off(tmp_path: Path) -> None:
    compiled = {n.replace("blocks.1.", "blocks.1._orig_mod.").replace("mlp.", "mlp._checkpoint_wrapped_module."): a
                for n, a in WEIGHTS.items()}  # fmt: skip
    assert open_checkpoint(saved(tmp_path / "w.pkl", compiled)).hash == HASH
    twice = {"module.norm.weight": WEIGHTS["norm.weight"], **WEIGHTS}
    with pytest.raises(Problem):  # both would be norm.weight: nothing comes off
        open_checkpoint(saved(tmp_path / "t.pkl", twice)).weights(CONFIG)


LARGER = {
    "buffers": (within("model."), {"mean": np.zeros((1, 3, 1, 1), np.float32), "std": np.ones((1, 3, 1, 1), np.float32)}),
    "a head": (within("backbone."), {"decode_head.conv_seg.bias": np.zeros(19, np.float32)}),
    "a loss with weights": (within("module.net."), {"module.criterion.perceptual.conv.weight": np.zeros((2, 2), np.float32)}),
    "a decoder of its own": (
        within("backbone.", ENCODER) | within("decoder.", {n: a for n, a in WEIGHTS.items() if n not in ENCODER}),
        {"classifier.weight": np.zeros((100, 48), np.float32)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LARGER)
def test_the_part_that_is_a_model_is_taken_and_the_rest_named(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, rest = LARGER[kind]
    path = saved(tmp_path / "w.pkl", {"state_dict": model | rest})
    assert convert(["numpy", "-c", str(path), "-o", str(tmp_path / "w.npz")]) == 0
    assert open_checkpoint(tmp_path / "w.npz").hash == HASH
    (notice,) = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert all(name.removeprefix("module.").partition(".")[0] in notice for name in rest)


def test_several_models_are_listed_and_one_is_taken_by_its_prefix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {name: 2 * array for name, array in WEIGHTS.items()}
    for number, content in enumerate((
        {"state_dict": within("student.", other) | within("teacher.")},
        {"student": other, "teacher": WEIGHTS},
    )):  # fmt: skip
        path, out = saved(tmp_path / f"{number}.pkl", content), tmp_path / f"{number}.npz"
        assert convert(["numpy", "-c", str(path), "-o", str(out)]) == 2
        said = capsys.readouterr().err
        assert "several models, under 'student.' (74 tensors), 'teacher.' (74 tensors); name one with --prefix" in said
        assert convert(["numpy", "-c", str(path), "--prefix", "teacher", "-o", str(out)]) == 0
        assert open_checkpoint(out).hash == HASH
        assert convert(["numpy", "-c", str(path), "--prefix", "tutor", "-o", str(out)]) == 2
        assert "begins with 'tutor.'; there are student. (74 tensors), teacher. (74 tensors)" in capsys.readouterr().err


def test_several_models_in_python(tmp_path: Path) -> None:
    other = {name: 2 * array for name, array in WEIGHTS.items()}
    path = saved(tmp_path / "w.pkl", {"student": other, "teacher": WEIGHTS})
    with refuses("ambiguous", match="name one with prefix="):
        load(MODEL, "numpy", weights=path)
    model = load(MODEL, "numpy", weights=path, prefix="teacher", verbose=False)
    assert np.array_equal(model.cls_token, WEIGHTS["cls_token"])
    with refuses("bad-argument", match="leave out dialect=, and the dialect is found"):
        load(MODEL, "numpy", weights=path, prefix="teacher", dialect="mindcv")


def test_two_models_in_one_are_still_refused(tmp_path: Path) -> None:
    with refuses("unknown-model", match=r"mindspore.*extra\.blocks\.0\.norm1\.weight"):
        open_checkpoint(saved(tmp_path / "w.pkl", within("extra.") | {"blocks.0.norm1.gamma": WEIGHTS["norm.bias"]}))


# Models that are none of ours

STRANGE = {
    "LayerScale": (
        {f"blocks.{i}.gamma_1": np.ones(48, np.float32) for i in range(3)},
        r"blocks\.\*\.gamma_1 \(3 tensors\)",
    ),
    "registers": ({"register_tokens": np.zeros((1, 4, 48), np.float32)}, r"register_tokens: .*DINOv2"),
    "relative positions": ({"blocks.0.attn.rel_pos_h": np.zeros((13, 16), np.float32)}, r"rel_pos_h.*SAM or ViTDet"),
    "groups of channels": ({"channel_embed": np.zeros((1, 3, 12), np.float32)}, r"channel_embed.*SatMAE"),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_a_file_of_no_model_here_says_so_at_once(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more, words = STRANGE[kind]
    path = saved(tmp_path / "w.pkl", ENCODER | more)
    with refuses("unknown-model", match=rf"(?s)is of no model here:.*unknown: .*{words}") as problem:
        prepare(path, Wish())
    assert "-m" not in str(problem.value)
    assert main(["inspect", str(path)]) == 0
    assert "unknown: " in capsys.readouterr().out


def test_without_its_entrance_no_model_is_advised(tmp_path: Path) -> None:
    fewer = {n: a for n, a in WEIGHTS.items() if not n.startswith("patch_embed") and n != "pos_embed"}
    with refuses("unknown-model", match=r"missing: pos_embed, patch_embed\.proj\.weight") as problem:
        prepare(saved(tmp_path / "w.pkl", fewer), Wish())
    assert "embed_dim=0" not in str(problem.value)


def test_of_another_models_encoder_only_the_encoder_is_taken(tmp_path: Path) -> None:
    rest = {"mask_token": np.zeros((1, 48), np.float32), "decoder.0.weight": np.zeros((2, 2), np.float32)}
    rest |= {"predictor.fc.weight": np.zeros((2, 2), np.float32), "neck.0.bias": np.zeros(2, np.float32)}
    path = saved(tmp_path / "w.pkl", ENCODER | rest)
    out = tmp_path / "w.npz"
    assert convert(["numpy", "-c", str(path), "--encoder-only", "-m", MODEL, "-o", str(out)]) == 0
    assert open_checkpoint(out).hash == content_hash(ENCODER)
    strange = saved(tmp_path / "s.pkl", ENCODER | {"register_tokens": np.zeros((1, 4, 48), np.float32)})
    assert convert(["numpy", "-c", str(strange), "--encoder-only", "-m", MODEL, "-o", str(tmp_path / "s.npz")]) == 2


# What a file says of its own model


@pytest.mark.parametrize("key", ["args", "config", "hyper_parameters"])
@pytest.mark.parametrize("said", [True, False])
def test_the_loss_that_a_file_was_trained_with_is_its_own(key: str, said: bool, tmp_path: Path) -> None:
    options = {"norm_pix_loss": said, "mask_ratio": 0.75, "lr": None}
    path = saved(
        tmp_path / "w.pkl", {"model": WEIGHTS, key: argparse.Namespace(**options) if key == "args" else options}
    )
    assert open_checkpoint(path).config.norm_pix_loss is said
    assert load(MODEL, "numpy", weights=path, verbose=False).config.norm_pix_loss is said
    assert load(MODEL, "numpy", weights=path, verbose=False, norm_pix_loss=not said).config.norm_pix_loss is not said


def test_heads_are_said_as_an_assumption_and_can_be_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = saved(tmp_path / "w.pkl", WEIGHTS), tmp_path / "w.npz"
    assert convert(["numpy", "-c", str(path), "-o", str(out)]) == 0
    assert f"taken for {MODEL}: 3 heads, 4 in the decoder, which no file shows" in capsys.readouterr().out
    assert convert(["numpy", "-c", str(path), "-m", f"{MODEL},num_heads=12,decoder_num_heads=2", "-o", str(out)]) == 0
    config = open_checkpoint(out).config
    assert (config.num_heads, config.decoder_num_heads, config.embed_dim) == (12, 2, 48)
    assert load(f"{MODEL},num_heads=12", "numpy").config.num_heads == 12
    for wrong, words in (("mae_vit_tset_patch8,num_heads=12", "Unknown model"), (f"{MODEL},heads=12", "did you mean")):
        assert convert(["numpy", "-c", str(path), "-m", wrong, "-o", str(out)]) == 2
        assert words in capsys.readouterr().err


def test_timm_says_in_its_config_which_encoder_it_is(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(array) for name, array in ENCODER.items()}, tmp_path / "model.safetensors")
    said = {"architecture": "vit_base_patch16_224", "num_classes": 0, "global_pool": "token",
            "model_args": {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 6}}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(said))
    found = open_checkpoint(tmp_path)
    assert found.evidence.declared == found.config
    assert (found.config.num_heads, found.config.img_size) == (6, (32, 32))
    for nonsense in (
        "[]",
        '{"architecture": "resnet50"}',
        '{"architecture": "vit_base_patch16_224", "model_args": 3}',
        "{",
    ):
        (tmp_path / "config.json").write_text(nonsense)
        assert open_checkpoint(tmp_path).model == MODEL  # by its shapes


# Sound files that no model here can use


def test_kinds_of_numbers_that_are_not_read_are_no_damage(tmp_path: Path) -> None:
    require("torch")
    import torch
    from safetensors.torch import save_file

    odd = {
        "torch.float8": torch.zeros(3).to(torch.float8_e4m3fn),
        "Complex": torch.zeros(3, dtype=torch.complex64),
        "quantized": torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8),
        "sparse": torch.eye(3).to_sparse(),
    }
    for words, tensor in odd.items():
        torch.save({"norm.bias": tensor}, tmp_path / "w.pth")
        with refuses("unsupported", match=f"norm.bias is .*{words.rpartition('.')[2]}.*nothing is wrong with the file"):
            open_checkpoint(tmp_path / "w.pth")
    save_file({"norm.bias": odd["torch.float8"]}, tmp_path / "w.safetensors")
    with refuses("unsupported", match="norm.bias is F8_E4M3.*nothing is wrong with the file"):
        open_checkpoint(tmp_path / "w.safetensors")


FOREIGN = {
    "tf_model.h5": "from_tf=True", "flax_model.msgpack": "from_flax=True", ".metadata": "dcp_to_torch",
    "zero_to_fp32.py": "python zero_to_fp32.py", "saved_model.pb": "SavedModel",
}  # fmt: skip


@pytest.mark.parametrize("file", FOREIGN)
def test_other_programs_folders_are_named_with_the_way_out(file: str, tmp_path: Path) -> None:
    (tmp_path / file).write_bytes(b"x")
    with refuses("unsupported", match=f"holds {file}: it is .*{FOREIGN[file]}"):
        open_checkpoint(tmp_path)


def test_a_torchscript_program_is_named(tmp_path: Path) -> None:
    require("torch")
    import torch

    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(str(tmp_path / "w.pt"))
    with refuses("unsupported", match=r"TorchScript program.*torch\.jit\.load"):
        open_checkpoint(tmp_path / "w.pt")
