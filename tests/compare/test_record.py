"""`polymae record`: a whole trace or one clear message, and nothing in between."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import children
import numpy as np
import pytest
from numpy.typing import NDArray
from runs import CONFIG, MODEL, Edited, inputs, refused

from polymae.backends.initial import initial_weights
from polymae.backends.spec import params
from polymae.cli import main
from polymae.cli.convert_weights import main as convert
from polymae.compare import OF_ONE_RUN
from polymae.compare.levels import expected
from polymae.compare.offline import compare_traces
from polymae.compare.options import Comparison
from polymae.compare.trace import Trace, write_trace
from polymae.convert.checkpoint import content_hash
from polymae.convert.writing import official_checkpoint

N, L, K, D = 2, 16, 4, 48
SHALLOW = "img_size=32,patch_size=8,embed_dim=48,depth=2,num_heads=3,decoder_embed_dim=32,decoder_num_heads=4"


def arguments(framework: str, out: Path, *more: object) -> list[str]:
    return ["record", "--framework", framework, "--inputs", str(inputs()), "--out", str(out), *map(str, more)]


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "polymae", *words]
    return children.run(command, text=True)


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
        levels = (*OF_ONE_RUN, "gradients")
        assert sorted(trace.files) == sorted(["manifest", *(tap.name for _, tap in expected(CONFIG, levels))])
        assert {"preprocessed/pixels", "input/noise", "ids_restore", "dy/blocks.0", "grad/cls_token"} <= set(
            trace.files
        )
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
    twin, noisy = record("--twin", 1)["pred"], record("--kernel-noise", "softmax=5")["pred"]
    plain_pred = record()["pred"]
    assert 0 < np.abs(twin - plain_pred).max() < 1e-5
    assert 0 < np.abs(noisy - plain_pred).max() < 1e-5


def test_only_the_tensors_that_were_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def record(name: str, *more: object) -> Path:
        assert main(arguments("numpy", tmp_path / name, "-m", MODEL, "--gradients", *more)) == 0
        return tmp_path / name

    patterns = ("--taps", "blocks.?", "pred", "grad/blocks.0.norm1.*", "loss", "input/imgs")  # something of every level
    wanted = [
        *(f"blocks.{i}" for i in range(CONFIG.depth)),
        "pred",
        "grad/blocks.0.norm1.bias",
        "grad/blocks.0.norm1.weight",
        "loss",
        "input/imgs",
    ]
    some = record("some.npz", *patterns)
    assert sorted(Trace(some).names) == sorted(wanted)
    whole = record("oracle.npz", "--dtype", "float64")
    twin = record("twin.npz", "--twin", 1)
    capsys.readouterr()
    for traces in ((whole, twin, some), (record("o.npz", "--dtype", "float64", *patterns), twin, record("plain.npz"))):
        found = compare_traces(traces, Comparison(reference=None))
        (judgement,) = found.judgements
        assert (judgement.verdict, found.exit_status) == ("roundoff", 0)
        assert sorted(finding.name for finding in judgement.findings if finding.level != "weights") == sorted(wanted)
        (notice,) = judgement.notices
        total = sum(1 for _ in expected(CONFIG, (*OF_ONE_RUN, "gradients")))
        assert notice.startswith(f"{total - len(wanted)} of {total} tensors were not recorded")
        assert "--taps blocks.? pred grad/blocks.0.norm1.*" in notice
    hole = Edited(some, {"blocks.1": None}).save(tmp_path / "hole.npz")  # it was asked for
    assert compare_traces((whole, twin, hole), Comparison(reference=None)).exit_status == 3
    said = refused(capsys, *arguments("numpy", tmp_path / "t.npz", "-m", MODEL, "--taps", "pred", "blocks.0.mlp.fc3"))
    assert "'blocks.0.mlp.fc3' matches none" in said
    assert "Nearest names: blocks.0.mlp.fc" in said
    assert not (tmp_path / "t.npz").exists()


def test_a_tensor_is_written_before_the_next_is_asked_for(tmp_path: Path) -> None:
    written = []

    def tensors() -> Iterator[tuple[str, NDArray[np.float32]]]:
        for name in ("one", "two", "three"):
            yield name, np.ones(100_000, np.float32)
            (new,) = tmp_path.glob(".*-new")
            written.append(new.stat().st_size)

    write_trace(tmp_path / "t.npz", {}, tensors())
    assert [size // 400_000 for size in written] == [1, 2, 3]


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
        ((*model, "--device", "cuda"), ["NumPy has no 'cuda'"]),
        ((*model, "--device", "cudo"), ["Did you mean 'cuda'"]),
        ((*model, "--dtype", "bfloat16"), ["numpy runs float32, float64"]),
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
        assert any(hint in said for hint in ("check the path", "give another", "give the path"))
        assert len(said.splitlines()) == 1
        assert str(Path(out).name) in said or str(Path(out).parent) in said
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


LACKING = {"numpy": ("--dtype", "bfloat16"), "megengine": ("--dtype", "float64")}


def test_what_a_framework_cannot_do_is_told(tmp_path: Path, framework: str) -> None:
    option, value = LACKING.get(framework, ("--device", "ascend"))
    done = run(*arguments(framework, tmp_path / "t.npz", "-m", MODEL, option, value))
    assert done.returncode == 2
    assert f"'{value}'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("more", [("--kernel-noise", "softmax=3"), ("--twin", "1")])
def test_twins_and_noise_are_numpys(tmp_path: Path, more: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, *arguments("torch", tmp_path / "t.npz", "-m", MODEL, *more))
    assert "are for NumPy, not torch" in said
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
        time.sleep(100_000)
np.lib.format.write_array = slow
sys.exit(main({arguments("numpy", out, "-m", MODEL)!r}))
"""
    command = [sys.executable, "-c", script]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    worker = subprocess.Popen(command, text=True, start_new_session=True, **pipes)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "in the middle\n"
    # It was writing.
    assert {file.name for file in tmp_path.iterdir()} == {".t.npz.polymae-lock", ".t.npz.polymae-new"}
    os.kill(worker.pid, signal.SIGINT)
    _, said = children.heard(worker)  # which waits for a part of that sleep
    assert worker.returncode == 130
    assert "stopped" in said
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())
