"""Options of `polymae compare` and `profile` that would be ignored are refused, and what they print can be piped."""

import json
from pathlib import Path

import pytest
from runs import CONFIG, MODEL, Edited, oracle, plain, recorded, refused, report, verdicts

from polymae.backends.config import ConfigError, MAEConfig, ViTConfig
from polymae.cli import main
from polymae.compare import profile
from polymae.compare.levels import expected
from polymae.compare.offline import compare_traces
from polymae.compare.options import Comparison
from polymae.compare.trace import Trace
from polymae.compare.verdict import require_reference
from polymae.files.errors import Problem

IGNORED = (
    "--frameworks=torch", "--model=mae_vit_base_patch16", "--mask-ratio=0.5", "--seed=1", "--device=cuda", "--threads=2",
    "--batch=3", "--norm-pix-loss", "--allow-tf32", "--time-limit=5", "--images=a.jpg", "--inputs=a.npz", "--keep=a",
    "--python=torch=python3",
)  # fmt: skip


@pytest.mark.parametrize("option", IGNORED)
def test_what_says_how_to_record_is_refused_with_traces(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "compare", option, "--traces", oracle(), plain())
    assert said.endswith(f"leave out --{option[2:].partition('=')[0]}.\n")


def test_a_comparison_is_the_same_behind_json() -> None:
    asked = Comparison(
        ("torch", "numpy"), weights=Path("/a/mae.pth"), images=(Path("/a/b.jpg"),), levels=("loss",), reference=None,
        rtol=1e-3, batch=3, time_limit=5.0, keep=Path("/k"), pythons={"torch": "/p/python"}, norm_pix_loss=True,
    )  # fmt: skip
    assert Comparison.from_dict(json.loads(json.dumps(asked.as_dict()))) == asked
    assert Comparison.from_dict({}) == Comparison()


def test_an_interpreter_for_nobody_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("compare", "-m", MODEL, "--frameworks", "torch", "--python")
    assert "oneflow, which is not compared" in refused(capsys, *words, "oneflow=/bin/true")
    assert "oracle could not be recorded" in refused(capsys, *words, "numpy=/no/such/python")


@pytest.mark.parametrize("tolerance", [{"rtol": 1e-30}, {"atol": 1e-30}])
def test_a_tolerance_for_no_tensor_is_refused(tolerance: dict[str, float]) -> None:
    traces = (oracle(), recorded("other", twin=1), plain())
    for levels in (("weights",), ("inputs", "weights")):
        with pytest.raises(Problem, match="levels forward, loss and gradients"):
            compare_traces(traces, Comparison(levels=levels, reference="numpy", **tolerance))
    require_reference(Comparison(levels=("weights", "loss"), **tolerance), "numpy", ["torch", "numpy"])


def test_a_tolerance_for_tensors_that_one_trace_lacks_is_not_comparable(tmp_path: Path) -> None:
    wanted = tuple(tap.name for _, tap in expected(CONFIG, ("forward", "loss", "gradients")))
    kept = [name for name in Trace(plain()).names if name not in wanted]
    bare = {name: None for name in Trace(plain()).names if name not in kept or name.startswith("input/")}
    path = Edited(plain(), bare, framework="torch", taps=["injected/*"]).save(tmp_path / "bare.npz")
    found = report(path, reference="numpy", atol=1e-5)
    assert verdicts(found) == {"torch": "not comparable"}
    assert "no tensor in common with numpy" in found.judgements[0].problem


def test_patches_of_one_value_are_refused() -> None:
    with pytest.raises(ConfigError, match="variance of a patch"):
        MAEConfig(img_size=8, patch_size=1, in_chans=1)
    assert MAEConfig(img_size=8, patch_size=1, in_chans=2).patch_dim == 2
    assert ViTConfig(img_size=8, patch_size=1, in_chans=1).patch_dim == 1  # a classifier has no such loss


def test_a_profile_can_be_piped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"version": "1.13.4+cu118", "device": "cpu", "twin": 1.0, "model": MODEL}
    rows = [
        row | {"framework": framework, "operation": f"transposed convolution backward {i}", "error": 10.9 if i else 0.5}
        for framework in ("torch", "megengine", "mindspore", "oneflow")
        for i in range(9)
    ]
    monkeypatch.setattr(profile, "profile", lambda *_: rows)
    assert main(["profile"]) == 0
    said = [line.strip() for line in capsys.readouterr().out.splitlines()]
    (line,) = [line for line in said if line.startswith("transposed convolution backward 8")]
    assert line.split()[4:] == ["10.9", "*"] * 4
    (line,) = [line for line in said if line.startswith("transposed convolution backward 0")]
    assert line.split()[4:] == ["0.5"] * 4
