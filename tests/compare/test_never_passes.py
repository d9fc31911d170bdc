"""What must never pass for parity: nothing compared, nothing comparable, a fault as its own reference."""

import fcntl
import sys
from pathlib import Path

import children
import numpy as np
import pytest
from mutants.recording import Mutant, record_mutant
from runs import CONFIG, MODEL, Edited, inputs, judged, oracle, plain, recorded, refused

from polymae import cli
from polymae.backends.config import ConfigError
from polymae.backends.initial import initial_weights
from polymae.backends.presets import model_config
from polymae.backends.runtime import RuntimeProblem, load_backend
from polymae.cli.convert_weights import main as convert
from polymae.compare import OF_ONE_RUN, profile
from polymae.compare.offline import compare_traces
from polymae.compare.options import Comparison, Run
from polymae.compare.record.child import record_in_process
from polymae.compare.record.record import record
from polymae.compare.trace import Trace
from polymae.convert.writing import official_checkpoint
from polymae.files.errors import Problem
from polymae.hub import load


def test_a_tensor_damaged_on_disk_leaves_the_others_judged(tmp_path: Path) -> None:
    path = Edited(plain()).save(tmp_path / "t.npz")
    content = bytearray(path.read_bytes())
    array = Trace(plain())["blocks.1"]
    content[content.index(array.tobytes()[:64])] ^= 1
    path.write_bytes(content)
    judgement = judged(Trace(path))
    assert judgement.verdict == "not comparable"
    assert "blocks.1 in" in judgement.problem
    assert next(found for found in judgement.findings if found.name == "pred").verdict == "roundoff"


def test_a_mask_that_removes_nothing_has_no_loss_to_compare(tmp_path: Path) -> None:
    fields = {"mask_ratio": 0.0, "levels": OF_ONE_RUN}
    whole = [recorded("oracle0", dtype="float64", **fields), recorded("plain0", **fields)]
    assert compare_traces(whole, Comparison(levels=("forward", "loss"))).exit_status == 2
    forward = compare_traces([*whole, recorded("twin0", twin=1, **fields)], Comparison(levels=("forward",)))
    assert forward.exit_status == 0  # encoding without a mask is judged


def test_a_trace_is_not_compared_with_itself() -> None:
    with pytest.raises(Problem, match="nothing to judge"):
        compare_traces([plain(), plain()], Comparison())


def test_a_level_that_was_asked_for_is_judged_or_refused(capsys: pytest.CaptureFixture[str]) -> None:
    bare = [
        recorded(f"bare {name}", levels=OF_ONE_RUN, **run) for name, run in {"o": {"dtype": "float64"}, "p": {}}.items()
    ]
    with pytest.raises(Problem, match="holds no gradients"):
        compare_traces(bare, Comparison(levels=("forward", "gradients")))
    found = compare_traces(bare, Comparison())
    assert "gradients" not in found.levels
    assert "not judged" in capsys.readouterr().err


def test_traces_and_recording_options_contradict_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "compare", "--traces", oracle(), plain(), "-m", MODEL, "--weights", "nosuch.pth")
    assert "leave out --model" in said
    assert "not allowed with" in refused(capsys, "compare", "-m", MODEL, "--inputs", inputs(), "--images", "a.jpg")


def test_an_unwritable_out_is_told_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert "is not a folder" in refused(capsys, "compare", "-m", MODEL, "--out", tmp_path / "file")


def test_what_should_not_happen_is_not_reported_as_a_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> int:
        raise TypeError("a bug")

    assert cli.run_safely("polymae test", broken) == 2
    assert "please report it" in capsys.readouterr().err
    monkeypatch.setenv("POLYMAE_DEBUG", "1")
    with pytest.raises(TypeError):
        cli.run_safely("polymae test", broken)


def test_a_pipe_that_closes_is_not_reported_as_a_fault() -> None:
    def closed() -> int:
        try:
            raise BrokenPipeError
        except BrokenPipeError:
            raise SystemExit(1)  # noqa: B904  (as rich does)

    assert cli.run_safely("polymae test", closed) == 141


@pytest.mark.parametrize(
    "setting", ["norm_eps=NaN", "norm_eps=0", "mlp_ratio=Infinity", "mlp_ratio=1e-9", "mlp_ratio=NaN"]
)
def test_a_model_without_numbers_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="finite numbers above 0"):
        model_config(setting)


def test_a_fault_needs_a_place_in_the_model(tmp_path: Path) -> None:
    shallow = "img_size=16,patch_size=8,embed_dim=12,num_heads=3,depth=1,decoder_embed_dim=8,decoder_num_heads=2"
    imgs = np.zeros((1, 3, 16, 16), np.float32)
    np.savez(tmp_path / "in.npz", imgs=imgs, noise=np.zeros((1, 4), np.float32))
    with pytest.raises(Problem, match=r"blocks\.1\.norm1, which this model does not have"):
        record_mutant(
            Mutant(
                "numpy",
                tmp_path / "t.npz",
                tmp_path / "in.npz",
                model=shallow,
                fault="layer norm eps ten times larger in one block",
            )
        )
    assert not (tmp_path / "t.npz").exists()


def test_noise_is_for_sums_not_for_decisions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(
        capsys, "record", "--framework", "numpy", "-m", MODEL, "--inputs", inputs(), "--out", tmp_path / "t.npz",
        "--kernel-noise", "argsort=3",
    )  # fmt: skip
    assert "argsort" in said


def test_a_wrong_kernel_is_not_remembered_as_an_inaccurate_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(profile, "KERNELS", tmp_path / "kernels.json")
    (tmp_path / "kernels.json").write_text("[]")
    row = {"framework": "x", "version": "1", "device": "cpu", "operation": "gelu", "error": 8.0, "twin": 1.0}
    profile.remember([row])
    assert "gelu" in (tmp_path / "kernels.json").read_text()
    with pytest.raises(Problem, match="a fault, not a kernel"):
        profile.remember([row | {"error": 3700.0}])


def test_a_device_that_is_not_there_is_refused_by_load() -> None:
    with pytest.raises(RuntimeProblem, match="sees no 'cuda'"):
        load(MODEL, framework="numpy", device="cuda")


def test_a_confident_classifier_has_a_finite_loss() -> None:
    runtime = load_backend("numpy")
    config = model_config("vit_test_patch8")
    weights = initial_weights(config)
    weights["head.weight"] *= np.float32(1e7)
    labels = np.arange(2)
    imgs = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    inputs = {"imgs": imgs, "labels": labels}
    single, double = (runtime.run(runtime.build(config, weights, dtype=d), inputs)[0]["loss"] for d in DTYPES)
    assert double > 104  # where float32 softmax underflows
    assert single == pytest.approx(double, rel=1e-5)


DTYPES = ("float32", "float64")
TRAINING = """
import argparse, sys, torch
state = torch.load(sys.argv[1], weights_only=True)["model"]
torch.save({"model": state, "epoch": 3, "args": argparse.Namespace(lr=1.0)}, sys.argv[2])
"""


def test_a_training_file_is_recorded_by_torch_though_its_loader_refuses_it(tmp_path: Path) -> None:
    official, training, trace = (tmp_path / name for name in ("official.pth", "training.pth", "t.npz"))
    official_checkpoint(official, CONFIG, initial_weights(CONFIG))
    children.run([sys.executable, "-c", TRAINING, str(official), str(training)], check=True)
    outcome = record_in_process(Run("torch", trace, inputs(), weights=training))
    assert outcome.trace, outcome.reason
    assert Trace(trace).manifest["source"] == Trace(plain()).manifest["source"]


def test_a_loader_that_loads_nothing_is_caught(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    official = tmp_path / "official.pth"
    official_checkpoint(official, CONFIG, initial_weights(CONFIG))
    monkeypatch.setattr("polymae.backends.torch.runtime.Backend.load_file", lambda self, model, path: None)
    record(Run("torch", tmp_path / "t.npz", inputs(), weights=official, levels=(*OF_ONE_RUN, "gradients")))
    judgement = judged(Trace(tmp_path / "t.npz"))
    assert judgement.verdict == "fault"
    assert {found.verdict for found in judgement.findings if found.level == "weights"} == {"fault"}


def test_two_comparisons_do_not_share_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "Another comparison" in refused(capsys, "compare", "-m", MODEL, "--keep", tmp_path)


def test_what_cannot_run_is_refused_before_anything_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "use a smaller batch" in refused(capsys, "compare", "-m", MODEL, "--batch", 10**9)
    assert "keeps none" in refused(capsys, "compare", "-m", MODEL, "--mask-ratio", 0.99)
    assert "--batch is for random images" in refused(capsys, "compare", "-m", MODEL, "--batch", 3, "--images", "a.jpg")
    assert "is a folder" in refused(capsys, "compare", "-m", MODEL, "--images", tmp_path)
    assert f"no {tmp_path / 'a.npz'}" in refused(capsys, "compare", "--traces", tmp_path / "a.npz", oracle())
    assert not list(tmp_path.iterdir())


def test_training_state_is_not_overwritten_by_a_conversion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    official, training = tmp_path / "official.pth", tmp_path / "training.pth"
    official_checkpoint(official, CONFIG, initial_weights(CONFIG))
    children.run([sys.executable, "-c", TRAINING, str(official), str(training)], check=True)
    before = training.read_bytes()
    assert convert(["torch", "-c", str(training), "-o", str(training)]) == 2
    assert "would lose something (epoch, args)" in capsys.readouterr().err
    assert training.read_bytes() == before
