"""What `convert_weights` does with arguments that do not go together, several files, and a provenance of other weights."""

import json

import numpy as np
from checkpoints import CONFIG, WEIGHTS, raw_pth, refused

from polymae.backends.initial import initial_weights
from polymae.cli.convert_weights import main as convert
from polymae.convert.checkpoint import content_hash, open_checkpoint


def test_names_that_are_none(tmp_path, capsys, official):
    out = tmp_path / "o.pth"
    for arguments, message in (
        (["--from", "klingon"], "Unknown dialect 'klingon'; there are official, timm, polymae"),
        (["--to", "klingon"], "Unknown dialect 'klingon'; there are official, timm, polymae"),
        (["--format", "tar"], "Unknown format 'tar'; there are npz, pth"),
        (["--format", "mindspore"], "does not end as mindspore files do: .ckpt"),
        (["--from", "huggingface"], "is not in the huggingface dialect"),
        (["--from", "megengine"], "is not in the megengine dialect"),
        (["--to", "timm"], "--encoder-only leaves out the decoder"),
        (["--image-size", "33"], "does not fit patch_size=8"),
        (["--image-size", "big"], "it must be a number of pixels (448) or height and width (320x448)"),
        (["--num-classes", "0"], "it must be at least 1"),
    ):
        assert message in refused(capsys, "torch", "-c", official, "-o", out, *arguments), arguments
        assert not out.exists()


def test_several_at_once_go_into_a_folder(tmp_path, capsys, official, monkeypatch):
    monkeypatch.chdir(tmp_path)
    second = raw_pth(tmp_path / "in" / "second.pth", initial_weights(CONFIG, seed=8))
    both = [str(official), str(second)]
    assert convert(["megengine", "-c", *both, "-o", "all"]) == 0
    assert sorted(p.name for p in (tmp_path / "all").glob("*.pkl")) == ["official.pkl", "second.pkl"]
    assert open_checkpoint(tmp_path / "all" / "second.pkl").hash == open_checkpoint(second).hash
    assert "is a file; several checkpoints go into a folder" in refused(
        capsys, "megengine", "-c", *both, "-o", official
    )
    (tmp_path / "other").mkdir()
    twin = raw_pth(tmp_path / "other" / "official.pth", WEIGHTS)
    third = raw_pth(tmp_path / "in" / "official_float16.pth", WEIGHTS)
    for sources, message in (
        ((official, twin), f"over what {official} becomes"),
        ((official, official), f"over what {official} becomes"),
        ((official, tmp_path / "none.pth"), "There is no file"),
        ((official, tmp_path), "is a folder, but not one"),
    ):
        said = refused(capsys, "megengine", "-c", second, *sources, "-o", "again")
        assert message in said
        assert not (tmp_path / "again").exists()
    said = refused(capsys, "torch", "-c", twin, third, "-o", third.parent, "--dtype", "float16")
    assert f"over {third}" in said


def test_standard_streams_are_refused(tmp_path, capsys, official):
    for arguments in (["-c", "-", "-o", tmp_path / "o.pth"], ["-c", official, "-o", "-"]):
        assert "Standard input and output cannot be used" in refused(capsys, "torch", *arguments)


def test_a_provenance_of_other_weights_is_refused(tmp_path, capsys, official):
    out, side = tmp_path / "o.pth", tmp_path / "o.pth.polymae.json"
    assert convert(["torch", "-c", str(official), "-o", str(out)]) == 0
    good = side.read_text()
    assert json.loads(good)["hash"] == content_hash(WEIGHTS)
    raw_pth(out.with_name("new.pth"), WEIGHTS | {"norm.bias": np.ones(48, np.float32)}).replace(out)
    message = refused(capsys, "torch", "-c", out, "-o", tmp_path / "again.pth")
    assert "is of other weights" in message
    assert "Remove o.pth.polymae.json" in message
    assert not (tmp_path / "again.pth").exists()
    for text in (
        "",
        "{",
        "[]",
        good.replace('"hash"', '"hush"'),
        good.replace('"depth": 3', '"depth": -3'),
        "[" * 9999,
    ):
        side.write_text(text)
        message = refused(capsys, "torch", "-c", out, "-o", tmp_path / "again.pth")
        assert f"The provenance in {side} is damaged" in message
    side.unlink()
    assert convert(["torch", "-c", str(out), "-o", str(tmp_path / "again.pth")]) == 0
