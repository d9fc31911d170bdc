"""The command line, and writing: what fails leaves nothing behind and nothing changed."""

import json
import os
import sys

import children
import numpy as np
import pytest
from checkpoints import CONFIG, ENDINGS, MODEL, SIZES, WEIGHTS, raw_pth, refused

from polymae.backends.initial import initial_weights
from polymae.backends.presets import model_config
from polymae.cli import main as polymae
from polymae.cli.convert_weights import main as convert
from polymae.convert.checkpoint import content_hash, open_checkpoint
from polymae.convert.formats import pth
from polymae.convert.writing import official_checkpoint, write_checkpoint
from polymae.files.errors import Problem


def test_the_upstream_converters_flags(official, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert convert(["megengine", "-m", MODEL, "-c", str(official)]) == 0
    assert open_checkpoint(f"pretrained/{MODEL}.pkl").format == "megengine"
    assert convert(["mindspore", "--torch_path", str(official), "--mindspore_path", "out.ckpt"]) == 0
    assert open_checkpoint("out.ckpt").format == "mindspore"
    assert convert(["oneflow", "--ckpt", str(official)]) == 0
    assert open_checkpoint(f"pretrained/{MODEL}").format == "oneflow"
    assert convert(["torch", "-c", f"pretrained/{MODEL}", "-o", "out.safetensors"]) == 0
    assert open_checkpoint("out.safetensors").format == "safetensors"
    assert convert(["torch", "-c", str(official), "-m", f"{SIZES},decoder_num_heads=4", "-o", "sizes.pth"]) == 0
    assert convert(["torch", "-c", str(official), "--encoder-only"]) == 0
    assert open_checkpoint(f"pretrained/{MODEL}_encoder.pth").contents == "encoder"


def test_bad_input_is_told_and_writes_nothing(tmp_path, capsys, official):
    out = tmp_path / "out" / "w.pkl"
    out.parent.mkdir()
    (tmp_path / "empty.pth").touch()
    (tmp_path / "page.pth").write_text("\n<!DOCTYPE html><html>Not found</html>")
    (tmp_path / "text.pth").write_text("hello")
    nan = raw_pth(tmp_path / "nan.pth", WEIGHTS | {"norm.bias": np.full(48, np.nan, np.float32)})
    large = model_config("mae_vit_large_patch16", img_size=(32, 32), depth=1, decoder_depth=1)
    other = raw_pth(tmp_path / "other.pth", initial_weights(large))
    os.mkfifo(tmp_path / "pipe")
    cases = [
        (["-c", tmp_path / "pipe"], "cannot-read", "pipe"),
        (["-c", "a\0b"], "cannot-read", ""),
        (["-c", "a" * 5000], "cannot-read", "a" * 5000),
        (["-c", official, "-o", tmp_path / ("a" * 300 + ".pkl")], "cannot-write", "a" * 300),
        (["-c", tmp_path / "none.pth"], "no-such-file", "none.pth"),
        (["-c", tmp_path], "not-a-checkpoint", "oneflow.save"),
        (["-c", tmp_path / "empty.pth"], "truncated", "empty.pth"),
        (["-c", tmp_path / "page.pth"], "not-a-checkpoint", "HTML"),
        (["-c", tmp_path / "text.pth"], "not-a-checkpoint", "hello"),
        (["-c", nan], "not-finite", "norm.bias has 48 NaN"),
        (["-c", official, "-m", "mae_vit_bas_patch16"], "bad-argument", "mae_vit_base_patch16"),
        (["-c", official, "-m", "mae_vit_base_patch16"], "does-not-fit", MODEL),
        (["-c", other], "unknown-model", "embed_dim=1024,depth=1,num_heads=?"),
        (["-c", official, "-o", "/proc/polymae.pkl"], "cannot-write", "/proc/polymae.pkl"),
        (["-c", official, "-o", tmp_path / "new" / "w.pkl"], "cannot-write", str(tmp_path / "new")),
        (["-c", official, "-o", tmp_path / "text.pth" / "w.pkl"], "cannot-write", "text.pth"),
        (["-c", official, "-o", tmp_path], "cannot-write", "folder"),
        (["-c", official, "-o", tmp_path / "w.ckpt"], "bad-argument", ".pkl"),
        (["-c", official, "-o", ""], "bad-argument", "-o"),
    ]
    before = sorted(tmp_path.rglob("*"))
    for arguments, code, value in cases:
        asked = arguments if "-o" in arguments else [*arguments, "-o", out]
        refusal = refused(capsys, "megengine", *asked)
        assert refusal.code == code, refusal
        assert value in refusal
        assert sorted(tmp_path.rglob("*")) == before
    assert "Did you mean 'megengine'?" in refused(capsys, "megngine", "-c", official)


def test_a_full_disk_leaves_the_old_file(into, tmp_path, official):
    target = tmp_path / "out" / f"w{ENDINGS[into]}"
    write_checkpoint(into, target, CONFIG, initial_weights(CONFIG, seed=9))
    digest, before = open_checkpoint(target).hash, sorted(tmp_path.rglob("*"))
    script = (
        "import resource, sys; from polymae.cli.convert_weights import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        f"sys.exit(main([{into!r}, '-c', {str(official)!r}, '-o', {str(target)!r}]))"
    )
    done = children.run([sys.executable, "-c", script], text=True)
    assert done.returncode == 2
    assert "Could not write" in done.stderr
    assert "0.5 MB" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before
    assert open_checkpoint(target).hash == digest


@pytest.mark.parametrize("when", [1, 74, 100])  # the last is while it is read back
def test_stopping_leaves_the_old_file(into, when, tmp_path):
    target = tmp_path / "out" / f"w{ENDINGS[into]}"
    old = initial_weights(CONFIG, seed=9)
    write_checkpoint(into, target, CONFIG, old)
    before, calls = sorted(tmp_path.rglob("*")), []

    def stop(done):
        calls.append(done)
        if len(calls) == when:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(into, target, CONFIG, WEIGHTS, stop)
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(into, tmp_path / "new" / "w.pth" / target.name, CONFIG, WEIGHTS, stop)
    assert sorted(tmp_path.rglob("*")) == before
    assert open_checkpoint(target).hash == content_hash(old)
    write_checkpoint(into, target, CONFIG, WEIGHTS)  # and a run that ends well replaces it
    assert open_checkpoint(target).hash == content_hash(WEIGHTS)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_write_that_reads_back_wrong_is_not_put_in_place(tmp_path, monkeypatch):
    right = pth.stored_bytes
    monkeypatch.setattr(pth, "stored_bytes", lambda name, tensor: bytes(right(name, tensor)).replace(b"\x3f", b"\x40"))
    with pytest.raises(Problem) as caught:
        official_checkpoint(tmp_path / "w.pth", CONFIG, WEIGHTS)
    assert caught.value.code == "cannot-write"
    assert not list(tmp_path.iterdir())


def test_a_users_folder_is_never_replaced(tmp_path, official, capsys):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    assert refused(capsys, "oneflow", "-c", official, "-o", mine).code == "cannot-write"
    assert (mine / "thesis.tex").read_text() == "years of work"


def test_a_file_can_be_converted_onto_itself_and_through_a_link(tmp_path, official):
    link = tmp_path / "link.pth"
    link.symlink_to(official)
    assert convert(["torch", "-c", str(official), "-o", str(link)]) == 0
    assert link.is_symlink()
    assert open_checkpoint(official).hash == content_hash(WEIGHTS)


def test_wrong_weights_are_not_written(tmp_path):
    for wrong, code, problem in (
        ({n: a.astype("i8") for n, a in WEIGHTS.items()}, "does-not-fit", "dtype: cls_token is int64"),
        ({"cls_token": WEIGHTS["cls_token"]}, "does-not-fit", "missing: pos_embed"),
        (WEIGHTS | {"norm.bias": np.full(48, np.inf, np.float32)}, "not-finite", "not finite: norm.bias"),
    ):
        with pytest.raises(Problem) as caught:
            write_checkpoint("torch", tmp_path / "w.pth", CONFIG, wrong)
        assert caught.value.code == code
        assert caught.value.problems[0].startswith(problem)
    with pytest.raises(Problem) as caught:
        write_checkpoint("jax", tmp_path / "w.pth", CONFIG, WEIGHTS)
    assert caught.value.code == "bad-argument"
    assert not list(tmp_path.iterdir())


def test_inspect(official, capsys):
    assert polymae(["inspect", str(official), "--json", "--tensors"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts | {"file": "", "tensor_list": []} == {
        "file": "", "format": "pth", "dialect": "official", "contents": "mae", "model": MODEL, "tensors": 74,
        "values": 128992, "dtypes": {"float32": 74}, "extras": [], "hash": content_hash(WEIGHTS), "tensor_list": [],
        "provenance": None, "problems": [],
    }  # fmt: skip
    assert facts["tensor_list"][0] == {"name": "cls_token", "shape": [1, 1, 48], "dtype": "float32"}
    assert polymae(["inspect", str(official)]) == 0
    assert MODEL in capsys.readouterr().out
    for more in ([], ["--json"]):
        assert polymae(["inspect", str(official.parent), *more]) == 2
        out, err = capsys.readouterr()
        assert "oneflow.save" in err
        if more:
            problem = json.loads(out)["problem"]
            assert (problem["code"], problem["problems"]) == ("not-a-checkpoint", [])
            assert err == f"polymae inspect: {problem['message']}\n"
        else:
            assert out == ""


def test_nothing_is_imported_that_is_not_needed(official):
    frameworks = ["torch", "megengine", "mindspore", "oneflow", "transformers", "timm", "safetensors", "rich"]
    script = f"""
import sys
from polymae.cli.convert_weights import main
assert main(["megengine", "-c", {str(official)!r}, "-o", {str(official.with_suffix(".pkl"))!r}]) == 0
assert not set({frameworks!r}) & set(sys.modules), set(sys.modules)
"""
    children.run([sys.executable, "-c", script], check=True)
