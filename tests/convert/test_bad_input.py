"""Arguments, and files beside the weights, that no conversion can follow: each is refused with its code, and costs nothing."""

import io
import json
import os
import sys

import children
import numpy as np
import pytest
from checkpoints import CONFIG, MODEL, SIZES, WEIGHTS, raw_pth, refused

from polymae.backends.config import ConfigError, MAEConfig, ViTConfig
from polymae.backends.initial import initial_weights
from polymae.backends.presets import model_config
from polymae.cli import main as polymae
from polymae.cli.convert_weights import main as convert
from polymae.convert.checkpoint import content_hash, open_checkpoint
from polymae.convert.dialects import DIALECTS
from polymae.convert.huggingface import read_config
from polymae.convert.probe import probe_tensors, write_probe
from polymae.convert.tensors import CheckpointProblem, cast, of_array
from polymae.convert.transform import WeightSet, refuse_inexpressible

DIGITS = "1" + "0" * 400


def test_arguments_that_are_none(tmp_path, capsys, official, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "long.json").write_text(json.dumps({"norm_eps": int(DIGITS)}))
    out = ["-o", "o.pth"]
    before = sorted(tmp_path.rglob("*"))
    for arguments, named in (
        (["--format", "bogus"], "'bogus'; there are npz, pth"),
        (["--format", ""], "''"),
        (["--format", "tar", *out], "'tar'; there are npz, pth"),
        (["--format", "mindspore", *out], ".ckpt"),
        (["--from", "klingon", *out], "'klingon'; there are official, timm, polymae"),
        (["--to", "klingon", *out], "'klingon'; there are official, timm, polymae"),
        (["--from", "huggingface", *out], "not in the huggingface dialect"),
        (["--from", "megengine", *out], "not in the megengine dialect"),
        (["-o", ""], "-o"),
        (["-m", f"{SIZES},decoder_num_heads=4"], "with -o"),
        (["--image-size", "²"], "'²'"),
        (["--image-size", "big", *out], "320x448"),
        (["--image-size", "33", *out], "patch_size=8"),
        (["--image-size", "9" * 5000], "65,536"),
        (["--image-size", "4000000"], "65,536"),
        (["--image-size", "65536"], "67,108,864 patches of 8 pixels; there can be up to 1,048,576"),
        (["--num-classes", "0", *out], "at least 1"),
        (["-m", "embed_dim=" + "1" * 5000], "embed_dim is '1111"),
        (["-m", f"norm_eps={DIGITS}"], "norm_eps is 1000000000000000"),
        (["-m", "img_size=" + "[" * 100_000], "img_size is '[[[["),
        (["-m", "deep.json"], "deep.json"),
        (["-m", "long.json"], "norm_eps is 1000000000000000"),
        (["-m", f"{SIZES.replace('depth=3', 'depth=2000000000')},decoder_num_heads=4"], "depth is 2000000000"),
        (["-c", "-", "-o", "o.pth"], "Standard input and output"),
        (["-o", "-"], "Standard input and output"),
    ):
        refusal = refused(capsys, "torch", *(() if "-c" in arguments else ("-c", official)), *arguments)
        assert refusal.code == "bad-argument", refusal
        assert named in refusal
        assert len(refusal) < 1000
    timm = refused(capsys, "torch", "-c", official, *out, "--to", "timm")
    assert (timm.code, "--encoder-only" in timm) == ("not-expressible", True)
    assert sorted(tmp_path.rglob("*")) == before


def test_several_at_once_go_into_a_folder(tmp_path, capsys, official, monkeypatch):
    monkeypatch.chdir(tmp_path)
    second = raw_pth(tmp_path / "in" / "second.pth", initial_weights(CONFIG, seed=8))
    both = [str(official), str(second)]
    assert convert(["megengine", "-c", *both, "-o", "all"]) == 0
    assert sorted(p.name for p in (tmp_path / "all").glob("*.pkl")) == ["official.pkl", "second.pkl"]
    assert open_checkpoint(tmp_path / "all" / "second.pkl").hash == open_checkpoint(second).hash
    assert refused(capsys, "megengine", "-c", *both, "-o", official).code == "bad-argument"
    (tmp_path / "other").mkdir()
    twin = raw_pth(tmp_path / "other" / "official.pth", WEIGHTS)
    third = raw_pth(tmp_path / "in" / "official_float16.pth", WEIGHTS)
    for sources, code, named in (
        ((official, twin), "bad-argument", f"over what {official} becomes"),
        ((official, official), "bad-argument", f"over what {official} becomes"),
        ((official, tmp_path / "none.pth"), "no-such-file", "none.pth"),
        ((official, tmp_path), "not-a-checkpoint", str(tmp_path)),
    ):
        refusal = refused(capsys, "megengine", "-c", second, *sources, "-o", "again")
        assert (refusal.code, named in refusal) == (code, True), refusal
        assert not (tmp_path / "again").exists()
    refusal = refused(capsys, "torch", "-c", twin, third, "-o", third.parent, "--dtype", "float16")
    assert (refusal.code, f"over {third}" in refusal) == ("bad-argument", True)


@pytest.mark.parametrize(
    "settings",
    [{"depth": 1001}, {"decoder_depth": 10**9}, {"embed_dim": 4 * 10**6}, {"img_size": (65552, 16)}, {"norm_eps": 10**400},
     {"mlp_ratio": 1e300}, {"img_size": 65536, "patch_size": 1}],
)  # fmt: skip
def test_sizes_that_no_model_has(settings):
    with pytest.raises(ConfigError, match="up to"):
        MAEConfig(**settings)
    assert model_config("mae_vit_huge_patch14", depth=1000, img_size=(14336, 14336)).num_patches == 1 << 20


def test_a_provenance_that_is_damaged_or_of_other_weights(tmp_path, capsys, official):
    out, side, again = tmp_path / "o.pth", tmp_path / "o.pth.polymae.json", tmp_path / "again.pth"
    assert convert(["torch", "-c", str(official), "-o", str(out)]) == 0
    good = side.read_text()
    facts = json.loads(good)
    assert facts["hash"] == content_hash(WEIGHTS)
    raw_pth(out.with_name("new.pth"), WEIGHTS | {"norm.bias": np.ones(48, np.float32)}).replace(out)
    refusal = refused(capsys, "torch", "-c", out, "-o", again)
    assert refusal.code == "bad-note"
    assert "Remove o.pth.polymae.json" in refusal
    long = good.replace('"norm_eps": 1e-06', f'"norm_eps": {DIGITS}')
    assert long != good
    for text in (
        *("", "{", "[]", "[" * 9999, long),
        *(good.replace('"hash"', '"hush"'), good.replace('"depth": 3', '"depth": -3')),
        *(json.dumps(facts | {"config": odd}) for odd in ([1], [], "", 0)),
    ):
        side.write_text(text)
        refusal = refused(capsys, "torch", "-c", out, "-o", again)
        assert (refusal.code, str(side) in refusal) == ("bad-note", True)
    assert not again.exists()
    side.unlink()
    assert convert(["torch", "-c", str(out), "-o", str(again)]) == 0


@pytest.mark.parametrize(
    ("values", "code", "named"),
    [
        ({"intermediate_size": 10**400}, "bad-note", "config.json"),
        ({"decoder_hidden_size": float("inf")}, "bad-note", "decoder_embed_dim is inf"),
        ({"layer_norm_eps": 10**400}, "bad-note", "norm_eps=1000000"),
        ({"patch_size": [8, 16]}, "bad-note", "square"),
        ({"id2label": "cat"}, "bad-note", "id2label is 'cat'"),
        ({"image_size": {"height": 32}}, "bad-note", "config.json"),
        ({"decoder_intermediate_size": 100}, "not-expressible", "mlp_ratio"),
    ],
)
def test_odd_config_files_of_hugging_face(values, code, named):
    contents = "classifier" if "id2label" in values else "mae"
    with pytest.raises(CheckpointProblem) as caught:
        read_config(json.dumps(values), contents, "config.json")
    assert caught.value.code == code
    assert named in str(caught.value)
    assert len(str(caught.value)) < 600


def test_an_encoder_with_a_decoder_of_another_ratio_can_be_taken_out(tmp_path, capsys):
    folder = tmp_path / "hf"
    write_probe("huggingface", "shards", folder)
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(said | {"patch_size": [8, 8], "image_size": [32, 32]}))
    assert open_checkpoint(folder).config == CONFIG
    (folder / "config.json").write_text(json.dumps(said | {"decoder_intermediate_size": 7}))
    refusal = refused(capsys, "torch", "-c", folder, "-o", tmp_path / "o.pth")
    assert (refusal.code, "--encoder-only" in refusal) == ("not-expressible", True)
    (folder / "config.json").unlink()  # as the message says
    out = tmp_path / "o.pth"
    assert convert(["torch", "-c", str(folder), "-o", str(out), "--encoder-only", "-m", MODEL]) == 0


def test_names_in_no_encoding(tmp_path, official):
    odd, out = (tmp_path / os.fsdecode(name) for name in (b"\xff\xc3\xa9.pth", b"out\xff.safetensors"))
    official.rename(odd)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    for module, arguments in (("cli.convert_weights", ["torch", "-c", odd, "-o", out]), ("cli", ["inspect", out])):
        script = f"import sys; from polymae.{module} import main; sys.exit(main())"
        command = [sys.executable, "-c", script, *map(str, arguments)]
        done = children.run(command, env=environment)
        assert done.returncode == 0, done.stderr
        assert b"\\udcff" in done.stdout


def test_a_stream_that_is_no_file_is_left_alone(official, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert polymae(["inspect", str(official)]) == 0
    assert MODEL in sys.stdout.getvalue()


def test_what_does_not_fit_a_dtype(tmp_path, capsys, official):
    large = WEIGHTS | {"norm.bias": np.full(48, 7e4, np.float32)}
    path, out = raw_pth(tmp_path / "large.pth", large), tmp_path / "o.pth"
    refusal = refused(capsys, "torch", "-c", path, "-o", out, "--dtype", "float16")
    assert refusal.code == "not-expressible"
    assert "bfloat16 or float32 or float64 holds them all (--dtype)" in refusal
    assert "too large: norm.bias has 48 of 48 values beyond float16, up to 70000" in refusal
    nan = raw_pth(tmp_path / "nan.pth", large | {"norm.weight": np.full(48, np.nan, np.float32)})
    for arguments in ((), ("--dtype", "float16")):
        refusal = refused(capsys, "torch", "-c", nan, "-o", out, *arguments)
        assert refusal.code == "not-finite"
        assert "not finite: norm.weight has 48 NaN" in refusal
    assert not out.exists()


def test_inspect_says_what_does_not_fit(tmp_path, capsys, official):
    assert polymae(["inspect", str(official), "-m", "mae_vit_base_patch16"]) == 0
    said = capsys.readouterr().out
    assert f"model     {MODEL}; not mae_vit_base_patch16" in said
    assert "missing: blocks.3.norm1.weight (768,)" in said
    nan = raw_pth(tmp_path / "nan.pth", WEIGHTS | {"norm.weight": np.full(48, np.nan, np.float32)})
    assert polymae(["inspect", str(nan), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["problems"] == [
        "not finite: norm.weight has 48 NaN and 0 Inf among 48 values"
    ]


def test_what_is_dropped_is_listed_and_a_hash_is_of_all(tmp_path, capsys):
    sizes = "img_size=16,patch_size=4,embed_dim=24,depth=1,num_heads=3,decoder_embed_dim=16,decoder_depth=1,"
    sizes += "decoder_num_heads=2,head=conv,decoder_norm=False,positions=1d,norm_eps=1e-5,masking=raster,loss_over=all"
    path = tmp_path / "own.pth"
    write_probe("flyegle", "pth", path, sizes)
    assert polymae(["inspect", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["hash"] is None
    assert polymae(["inspect", str(path)]) == 0
    assert "hash      depends on the model, which the file does not tell: say with -m" in capsys.readouterr().out
    assert polymae(["inspect", str(path), "--json", "-m", sizes]) == 0
    digest = json.loads(capsys.readouterr().out)["hash"]
    assert convert(["torch", "-c", str(path), "-m", sizes, "-o", str(tmp_path / "o.pth")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"hash   {digest}" in lines
    (dropped,) = (line for line in lines if line.startswith("drop "))
    names = {"Decoder.cls_token", *(f"{m}.{x}" for m in ("Decoder.patch_embed.proj", "Decoder.norm", "norm")
                                    for x in ("weight", "bias"))}  # fmt: skip
    assert set(dropped.removeprefix("drop   ").split(", ")) == names
    assert not any("unmask_embed" in line or "ignored" in line for line in lines)


def test_probe_check_in_json(tmp_path, capsys):
    path = str(tmp_path / "p.pth")
    assert polymae(["probe", "--dialect", "official", "--format", "pth", "-o", path, "--json"]) == 0
    count = json.loads(capsys.readouterr().out)["elements"]
    assert polymae(["probe", "--check", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"elements": count, "differences": []}


def test_images_that_a_program_cannot_take():
    mae = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 1, "num_heads": 3}
    mae |= {"decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2}
    vit = {name: value for name, value in mae.items() if not name.startswith("decoder")}
    four, wide = "in_chans=4", "not square"
    for config, contents in (
        (MAEConfig(**mae), "mae"),
        (MAEConfig(**mae), "encoder"),
        (ViTConfig(**vit), "classifier"),
    ):
        for dialect in ("official", "libai", "mindcv", "mindformers-0.8", "mindformers-0.3"):
            for odd, named in (({"in_chans": 4}, four), ({"img_size": (16, 20)}, wide)):
                changed = type(config)(**{**(mae if contents != "classifier" else vit), **odd})
                weights = WeightSet(changed, contents, probe_tensors(changed, contents))
                if dialect == "official" and contents != "mae":  # there nothing but the loss needs them
                    refuse_inexpressible(DIALECTS[dialect], weights)
                    continue
                with pytest.raises(CheckpointProblem, match=named) as caught:
                    refuse_inexpressible(DIALECTS[dialect], weights)
                assert caught.value.code == "not-expressible"


def test_float64_is_rounded_to_bfloat16_once():
    half = 2.0**-8  # half of bfloat16's last place at 1
    cases = {
        1 + half + 2.0**-40: 1.0078125, 1 + half: 1.0, 1 + half - 2.0**-40: 1.0, 1 + 3 * half: 1.015625,
        1 + 3 * half - 2.0**-40: 1.0078125, -1 - half - 2.0**-40: -1.0078125, 1e300: np.inf, -np.inf: -np.inf,
        1e-60: 0.0, 2.0**-134 * (1 + 2.0**-40): 2.0**-133, 2.0**-134: 0.0, np.nan: np.nan,
    }  # fmt: skip
    values = np.array([*cases, -0.0, 0.0])
    found = cast(cast(of_array(values), "bfloat16"), "float64").load()
    np.testing.assert_array_equal(found, [*cases.values(), 0.0, 0.0])
    assert list(np.signbit(found[-2:])) == [True, False]
