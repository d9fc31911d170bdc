"""Somebody's own model by recorded traces, and the worked example of docs/own-models.md."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import children
import numpy as np
import pytest
from perceptron import GRADIENTS, INPUTS, another_order, float64_always, model
from repository import ROOT
from untested import require

from polymae.compare import Problem, parity_of_traces, save_trace
from polymae.compare.trace import Trace, TraceProblem

EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    narrow = {name: array.astype(np.float32) if array.dtype.kind == "f" else array for name, array in INPUTS.items()}
    save_trace(tmp_path / "oracle.npz", float64_always(narrow), framework="numpy", dtype="float64", inputs=narrow)
    save_trace(tmp_path / "twin.npz", another_order(narrow), framework="numpy", inputs=INPUTS)
    save_trace(tmp_path / "right.npz", model(narrow), framework="mine", inputs=INPUTS)
    save_trace(tmp_path / "wrong.npz", model(narrow, eps=1e-3), framework="mine", environment={"version": "3"})
    save_trace(tmp_path / "other.npz", model(narrow), framework="mine", inputs={"x": np.ones(3)})
    save_trace(tmp_path / "half.npz", model(narrow), framework="mine", dtype="bfloat16", inputs=INPUTS)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "right.npz").read_bytes()[:900])
    return tmp_path


def test_traces_are_judged_like_callables(traces):
    names = ["right", "wrong", "other", "half", "cut", "absent"]
    candidates = [traces / f"{name}.npz" for name in names]
    result = parity_of_traces(traces / "oracle.npz", [traces / "twin.npz"], candidates, gradients=GRADIENTS)
    assert [judgement.verdict for judgement in result.judgements] == ["roundoff", "fault", *["not comparable"] * 4]
    assert result.judgements[0].label == "mine (right.npz)"
    assert result.judgements[1].environment == {"framework": "mine", "version": "3"}
    assert result.first_wrong is not None
    assert result.first_wrong.name == "normed"
    for judgement, said in zip(result.judgements[2:], ("input x differs", "bfloat16", "not a whole", "No trace")):
        assert said in judgement.problem
    assert parity_of_traces(traces / "oracle.npz", [], candidates[:1], gradients=GRADIENTS).ok


def test_traces_that_set_no_limit_are_problems(traces):
    def judge(oracle: str, twins: list[str], candidates: list[str]) -> None:
        parity_of_traces(traces / oracle, [traces / name for name in twins], [traces / name for name in candidates])

    for given, said in (
        (("twin.npz", [], ["right.npz"]), "must compute in float64"),
        (("oracle.npz", ["other.npz"], ["right.npz"]), "cannot set a limit: input x differs"),
        (("oracle.npz", ["right.npz"], ["right.npz"]), "may not set its own limit"),
        (("oracle.npz", [], []), "No candidate"),
        (("cut.npz", [], ["right.npz"]), "not a whole trace"),
    ):
        with pytest.raises(Problem, match=said):
            judge(*given)
    with pytest.raises(TraceProblem, match="parity_of_traces"):
        _ = Trace(traces / "right.npz").config
    with pytest.raises(Problem, match="needs tensors"):
        save_trace(traces / "none.npz", {}, framework="mine")
    with pytest.raises(Problem, match="logits is object"):
        save_trace(traces / "none.npz", {"logits": object()}, framework="mine")
    assert not (traces / "none.npz").exists()


def test_importing_compare_imports_nothing_heavy():
    code = (
        "import sys, polymae.compare as c; got = {'numpy', 'rich', 'torch'} & set(sys.modules); assert not got, got\n"
    )
    code += "from polymae.compare import parity; got = {'torch', 'mindspore', 'PIL', 'rich', 'matplotlib'} & set(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code + "; assert not got, got"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def masked(text: str) -> str:
    """A report without its numbers, which differ between processors."""
    return re.sub(r" +", " ", re.sub(r"\d+(\.\d+)?(e[+-]\d+)?", "#", text)).strip()


def test_the_worked_example_prints_what_the_page_shows(tmp_path):
    require("torch")
    require("mindspore")
    page = (EXAMPLES.parent / "own-models.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(\w*)\n(.*?)```", page, flags=re.DOTALL)
    for path in sorted(EXAMPLES.glob("*.py")):
        assert ("python", path.read_text(encoding="utf-8")) in blocks, (
            f"own-models.md does not show {path.name} as it is"
        )

    def run(script: str, *arguments: str) -> str:
        command = [sys.executable, str(EXAMPLES / script), *arguments]
        env = os.environ | {
            f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")
        }  # others work here too
        done = children.run(command, cwd=tmp_path, text=True, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    shown = [masked(text) for language, text in blocks if language == "text"]
    for script in ("compare_nets.py", "modules.py", "causes.py"):
        assert masked(run(script)) in shown
    run("by_traces.py", "torch")
    run("by_traces.py", "mindspore")
    judged_apart = run("by_traces.py", "judge")
    assert judged_apart.startswith(
        "mindspore (mindspore.npz) against the reference in float64: roundoff\n12 tensors compared"
    )
