"""`polymae record`: a whole trace or one clear message, and nothing in between."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from polymae.backends.initial import initial_weights
from polymae.backends.spec import params, scores, taps
from polymae.cli import main
from polymae.cli.convert_weights import main as convert
from polymae.compare.trace import Trace
from polymae.convert.checkpoint import content_hash
from polymae.convert.writing import official_checkpoint
from runs import CONFIG, MODEL, inputs

N, L, K, D = 2, 16, 4, 48
SHALLOW = "img_size=32,patch_size=8,embed_dim=48,depth=2,num_heads=3,decoder_embed_dim=32,decoder_num_heads=4"


def arguments(framework: str, out: Path, *more: object) -> list[str]:
    return ["record", "--framework", framework, "--inputs", str(inputs()), "--out", str(out), *map(str, more)]


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "polymae.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run a command, see it fail with status 2, and give what it said."""
    capsys.readouterr()
    try:
        status = main([str(word) for word in words])
    except SystemExit as left:
        status = int(left.code or 0)
    said = capsys.readouterr()
    assert status == 2, words
    assert "Traceback" not in said.err
    assert not said.out
    return said.err


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "official.pth"
    official_checkpoint(path, CONFIG, initial_weights(CONFIG, seed=3))
    return path


def test_a_trace_holds_everything(framework: str, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "new folder" / "trace.npz"
    done = run(*arguments(framework, out, "--weights", weights, "--gradients", "--mask-ratio", "0.75"))
    assert done.returncode == 0, done.stderr
    assert [file.name for file in out.parent.iterdir()] == ["trace.npz"]
    with np.load(out, allow_pickle=False) as trace:
        assert set(trace.files) == {
            "manifest", "input/imgs", "input/noise",
            *(tap.name for tap in (*taps(CONFIG), *scores(CONFIG))),
            *(f"grad/{param.name}" for param in params(CONFIG)),
        }  # fmt: skip
        assert trace["latent"].shape == (N, K + 1, D)
        assert trace["pred"].shape == (N, L, 8 * 8 * 3)
        assert trace["mask"].sum(axis=1).tolist() == [L - K] * N
        assert sorted(trace["ids_restore"][0]) == list(range(L))
        assert trace["loss"].shape == ()
        for param in params(CONFIG):
            assert trace[f"grad/{param.name}"].shape == param.shape
        with np.load(inputs()) as given:
            for name in ("imgs", "noise"):
                np.testing.assert_array_equal(trace[f"input/{name}"], given[name])
                assert trace[f"input/{name}"].dtype == np.float32
        manifest = json.loads(str(trace["manifest"]))
    assert manifest["source"] == content_hash(initial_weights(CONFIG, seed=3))
    assert manifest["environment"]["framework"] == framework
    assert manifest["environment"]["version"]
    assert (manifest["dtype"], manifest["mask_ratio"], manifest["twin"]) == ("float32", 0.75, None)
    assert manifest["weights"].keys() == {param.name for param in params(CONFIG)}


def test_options_are_obeyed(tmp_path: Path) -> None:
    def record(*more: object) -> Trace:
        out = tmp_path / "t.npz"
        assert main(arguments("numpy", out, "-m", MODEL, *more)) == 0
        return Trace(out)

    plain = record()
    assert not any(name.startswith("grad/") for name in plain.names)
    assert plain["loss"] == plain["pixel.loss"] != plain["norm_pix.loss"]
    normalised = record("--norm-pix-loss")
    assert normalised["loss"] == normalised["norm_pix.loss"] == record()["norm_pix.loss"]
    assert record("--mask-ratio", 0.5)["latent"].shape == (N, 9, D)
    assert record("--seed", 1).manifest["source"] != plain.manifest["source"]
    assert record("--dtype", "float64")["pred"].dtype == np.float64
    spoilt = record("--fault", "mask token not added")
    assert spoilt.manifest["fault"] == "mask token not added"
    assert spoilt.manifest["weights"]["mask_token"] != record().manifest["weights"]["mask_token"]
    twin, noisy = record("--twin", 1)["pred"], record("--kernel-noise", "softmax=5")["pred"]
    plain_pred = record()["pred"]
    assert 0 < np.abs(twin - plain_pred).max() < 1e-5
    assert 0 < np.abs(noisy - plain_pred).max() < 1e-5


def bad_inputs(folder: Path) -> dict[str, tuple[Any, str]]:
    """Inputs that do not fit, as arrays or as the bytes of a file, and what must be said of each."""
    with np.load(inputs()) as given:
        imgs, noise = given["imgs"], given["noise"]
    nan = imgs.copy()
    nan[0, 1, 2, 3:5] = np.nan
    np.save(folder / "array.npy", imgs)
    return {
        "size": ({"imgs": imgs[..., :24], "noise": noise}, "imgs in"),
        "channels": ({"imgs": imgs[:, :1], "noise": noise}, "[N, 3, 32, 32]"),
        "none": ({"imgs": imgs[:0], "noise": noise[:0]}, "(0, 3, 32, 32)"),
        "three": ({"imgs": imgs[0], "noise": noise}, "(3, 32, 32)"),
        "noise": ({"imgs": imgs, "noise": noise[:, :9]}, "it must be (2, 16)"),
        "fewer": ({"imgs": imgs, "noise": noise[:1]}, "it must be (2, 16)"),
        "nan": ({"imgs": nan, "noise": noise}, "imgs in"),
        "infinite": ({"imgs": imgs, "noise": noise / 0}, "noise in"),
        "large": ({"imgs": imgs * 1e60, "noise": noise}, "NaN or infinite"),
        "no noise": ({"imgs": imgs}, "needs imgs and noise"),
        "no imgs": ({"noise": noise}, "holds noise"),
        "nothing": ({}, "holds nothing"),
        "text": ({"imgs": imgs.astype(str), "noise": noise}, "imgs in"),
        "complex": ({"imgs": imgs, "noise": noise * 1j}, "complex64"),
        "objects": ({"imgs": imgs.astype(object), "noise": noise}, "not a readable .npz"),
        "empty": (b"", "not a readable .npz"),
        "page": (b"<!DOCTYPE html>", "not a readable .npz"),
        "cut": (inputs().read_bytes()[:3000], "not a readable .npz"),
        "array": ((folder / "array.npy").read_bytes(), "one array without a name"),
    }


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_inputs_that_do_not_fit_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, (content, message) in bad_inputs(tmp_path).items():
        path = tmp_path / f"{name}.npz"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            np.savez(path, **content)
        before = sorted(tmp_path.rglob("*"))
        said = refused(
            capsys, "record", "--framework", "numpy", "-m", MODEL, "--inputs", path, "--out", tmp_path / "o" / "t.npz"
        )
        assert message in said, name
        assert str(path) in said, name
        assert len(said.splitlines()) == 1
        assert sorted(tmp_path.rglob("*")) == before
    none = refused(
        capsys, "record", "--framework", "numpy", "-m", MODEL, "--inputs", tmp_path / "x", "--out", tmp_path / "t.npz"
    )
    assert "No inputs file" in none


def test_classifiers_get_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load(inputs()) as given:
        imgs = given["imgs"]
    path, out = tmp_path / "in.npz", tmp_path / "t.npz"
    words = ["record", "--framework", "numpy", "-m", "vit_test_patch8", "--inputs", path, "--out", out]
    for labels, message in (
        (np.array([0, 10]), "0 to 9 fit"),
        (np.array([-1, 1]), "0 to 9 fit"),
        (np.array([[1, 2]]), "must be (2,)"),
        (np.array([0.5, 1.0]), "whole numbers"),
    ):
        np.savez(path, imgs=imgs, labels=labels)
        assert message in refused(capsys, *words)
    np.savez(path, imgs=imgs * np.nan, labels=np.array([0, 9]))
    assert "imgs in" in refused(capsys, *words)
    assert not out.exists()
    np.savez(path, imgs=imgs, labels=np.array([0, 9]))
    assert main([str(word) for word in words]) == 0
    assert Trace(out)["logits"].shape == (2, 10)


def test_what_cannot_be_run_is_told(tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder, text = tmp_path / "encoder.pth", tmp_path / "text.pth"
    assert convert(["torch", "-c", str(weights), "-m", MODEL, "--encoder-only", "-o", str(encoder)]) == 0
    text.write_text("hello")
    out = tmp_path / "o" / "t.npz"
    model = ("-m", MODEL)
    before = sorted(tmp_path.rglob("*"))
    for more, messages in (
        (("-m", "mae_vit_bas_patch16"), ["Nearest names: mae_vit_base_patch16"]),
        ((), ["Neither weights nor a model"]),
        (("--weights", tmp_path / "none.pth"), ["none.pth", "no file"]),
        (("--weights", text, *model), ["text.pth"]),
        (("--weights", encoder), ["without a decoder", "_full.pth", "mae_visualize"]),
        (("--weights", weights, "-m", SHALLOW), [f"Its shapes are those of {MODEL}"]),
        ((*model, "--fault", "tanh glu"), ["Nearest names: tanh gelu"]),
        ((*model, "--device", "cuda"), ["NumPy has no 'cuda'"]),
        ((*model, "--device", "cudo"), ["Did you mean 'cuda'"]),
        ((*model, "--dtype", "bfloat16"), ["NumPy runs float32, float64"]),
        ((*model, "--mask-ratio", "1.0"), ["mask_ratio=1.0 keeps none of 16 patches"]),
        ((*model, "--mask-ratio", "-1"), ["mask_ratio=-1.0"]),
        ((*model, "--mask-ratio", "nan"), ["mask_ratio=nan"]),
        ((*model, "--seed", "-1"), ["'-1' is not a whole number of at least 0"]),
        ((*model, "--twin", "x"), ["'x' is not a whole number of at least 0"]),
        ((*model, "--threads", "0"), ["at least 1"]),
        ((*model, "--kernel-noise", "softmax"), ["OPERATION=SIZE"]),
        ((*model, "--kernel-noise", "softmax=nan"), ["OPERATION=SIZE"]),
        ((*model, "--kernel-noise", "softmx=3"), ["no 'softmx'", "softmax"]),
    ):
        said = refused(capsys, *arguments("numpy", out, *more))
        assert all(message in said for message in messages), (more, said)
        assert sorted(tmp_path.rglob("*")) == before, more


def test_a_trace_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for out in ("/proc/polymae/t.npz", tmp_path / "file" / "t.npz", tmp_path / "folder"):
        said = refused(capsys, *arguments("numpy", Path(out), "-m", MODEL))
        assert "check the path, its permissions and the free space" in said
        assert len(said.splitlines()) == 1
        assert str(Path(out).name) in said or str(Path(out).parent) in said
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


@pytest.mark.parametrize(
    ("framework", "more", "message"),
    [
        ("megengine", ["--dtype", "float64"], "it has no float64 tensors"),
        ("torch", ["--kernel-noise", "softmax=3"], "are for NumPy, not torch"),
        ("torch", ["--twin", "1"], "are for NumPy, not torch"),
    ],
    ids=["float64", "noise", "twin"],
)
def test_what_a_framework_cannot_do_is_told(tmp_path: Path, framework: str, more: list[str], message: str) -> None:
    done = run(*arguments(framework, tmp_path / "t.npz", "-m", MODEL, *more))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "t.npz"
    script = f"""
import sys, time
import numpy as np
from polymae.cli import main
write, calls = np.lib.format.write_array, []
def slow(*args, **kwargs):
    write(*args, **kwargs)
    calls.append(0)
    if len(calls) == 5:
        print("in the middle", flush=True)
        time.sleep(60)
np.lib.format.write_array = slow
sys.exit(main({arguments("numpy", out, "-m", MODEL)!r}))
"""
    command = [sys.executable, "-c", script]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "in the middle\n"
    assert [file.suffix for file in tmp_path.iterdir()] == [".part"]  # it was writing
    started = time.monotonic()
    os.kill(worker.pid, signal.SIGINT)
    _, said = worker.communicate(timeout=30)
    assert worker.returncode == 130
    assert time.monotonic() - started < 20
    assert "stopped" in said
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())
