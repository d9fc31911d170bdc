"""Right ports of other people's nets are found right in every framework, and what is planted in them is named.

A small part of benchmarks/own_models.py, and proof that the benchmark itself can fail.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from frameworks import frameworks_under_test
from repository import ROOT

BENCHMARKS = ROOT / "benchmarks"
NETS = BENCHMARKS / "nets"
FRAMEWORKS = ("torch", "megengine", "mindspore", "oneflow")  # NumPy is no framework that a user's net is written in
# One of each kind: wrong at the first and at the last tensor, by text and by weights, by much, by little and in gradients only.
FEW = (
    "padding on one side", "small bias of a convolution dropped", "labels smoothed", "loss scale not taken out",
    "pool in ceil mode", "two blocks swapped", "tanh gelu", "gradient stopped at a skip connection",
    "layer norm eps of PyTorch", "attention scale off by 1e-4", "square matrix transposed", "dropout left on",
)  # fmt: skip


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The benchmark as a module; what it imports from its own folder is forgotten behind the test."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module("own_models")
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("own_models", "nets", "convert"):
            del sys.modules[name]


@pytest.mark.parametrize("framework", [name for name in FRAMEWORKS if name in frameworks_under_test()])
def test_right_ports_are_right_and_faults_are_named(framework: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    command = [sys.executable, BENCHMARKS / "own_models.py", "--frameworks", framework, "--out", page]
    command += ["--seeds", "2", "--fault-seeds", "1", "--faults", *FEW]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    text = page.read_text(encoding="utf-8")
    for net in ("conv", "mixer", "transformer", "wide"):
        assert re.search(rf"^\| {framework} \| {net} \| 2 \| \d \| \d \| 0 \|", text, re.MULTILINE), text
    planted = len(FEW) - (framework == "megengine")  # which has no ceil mode
    assert f"{planted} of {planted} runs ({planted} kinds) were found as they were planted" in text


def test_the_ports_record_the_same_tensors_in_the_same_order() -> None:
    recorded = {path.name: _recorded(path) for path in [*NETS.glob("*_nets.py"), NETS / "torch_port.py"]}
    assert len(recorded) == 5
    reference = recorded["torch_nets.py"]
    assert [name for name, _ in reference] == ["conv", "mixer", "transformer"]
    assert all(found == reference for found in recorded.values())


def _recorded(path: Path) -> list[tuple[str, list[str]]]:
    """Every net in a module, and the names of its taps as they are written."""
    nets = path.read_text(encoding="utf-8").split("@recorded\ndef ")[1:]
    return [(net.partition("(")[0], re.findall(r'out\[f?"?([^"\]]+)"?\] =', net)) for net in nets]


def test_every_fault_fits_the_ports_and_names_a_tensor_that_is_compared(bench: ModuleType) -> None:
    faults = importlib.import_module("nets.faults").FAULTS
    planting, settings = (importlib.import_module(f"nets.{name}") for name in ("planting", "settings"))
    assert len(faults) >= 40
    for fault in faults.values():
        net = settings.NETS[fault.net]
        assert not fault.tap or fault.tap in (*net.taps, *net.gradients), fault.name
        for framework, pairs in fault.edits.items():
            source = (BENCHMARKS / (planting.PORTS[framework].replace(".", "/") + ".py")).read_text(encoding="utf-8")
            assert all(old in source and new != old for old, new in pairs), (fault.name, framework)
        if fault.inputs:
            inputs = {
                name: array.astype("float32") if array.dtype.kind == "f" else array
                for name, array in net.inputs(0).items()
            }
            spoilt = fault.spoilt(inputs)
            assert spoilt.keys() == inputs.keys()
            assert {name: array.shape for name, array in spoilt.items()} == {n: a.shape for n, a in inputs.items()}
            assert any((spoilt[name] != inputs[name]).any() for name in inputs), fault.name
    for wrong in ({}, {"inputs": dict}, {"inputs": dict, "tap": "conv1", "incomparable": "raised"}):
        with pytest.raises(ValueError, match="changes nothing|either a tap or why"):
            planting.Fault("none", "conv", **{"tap": "", "about": ""} | wrong)


def test_what_is_not_as_it_should_be_is_told(bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    measured = bench.measure("torch", [("conv", 0, "leaky relu"), ("conv", 0, "pool in ceil mode"), ("conv", 0, None)])
    assert not measured.problem
    leaky, ceil, right = measured.runs
    assert all(run.as_expected for run in measured.runs)
    assert (leaky.first, ceil.first, right.first) == ("relu", "", "")
    assert leaky.ratio > 1000
    for run, words in (
        (
            replace(leaky, fault=None),
            "torch, conv, seed 0: fault: first wrong: relu",
        ),  # as a right port it is a false alarm
        (replace(leaky, first="pool"), "planted at relu"),
        (replace(leaky, verdict="roundoff", first=""), "planted at relu"),
        (replace(right, fault="leaky relu"), "planted at relu"),
        (replace(ceil, fault=None), "torch, conv, seed 0: not comparable"),
        (replace(ceil, reason="torch: not comparable: another reason"), "it has to be not comparable"),
        (replace(right, verdict="coverage hole", reason="torch: coverage hole: loss is missing"), "loss is missing"),
    ):
        assert not run.as_expected
        monkeypatch.setattr(bench, "measure", lambda framework, requests, run=run: bench.Measured([right, run]))
        assert bench.main(["--frameworks", "torch", "--seeds", "1"]) == 1
        assert words in capsys.readouterr().out
    monkeypatch.setattr(bench, "measure", lambda framework, requests: bench.Measured([right, leaky]))
    assert bench.main(["--frameworks", "torch", "--seeds", "1", "--nets", "conv", "--faults", "leaky relu"]) == 0
    said = capsys.readouterr().out
    assert "`benchmarks/own_models.py --seeds 1 --fault-seeds 3 --nets conv --faults 'leaky relu'`" in said
    assert "| torch | conv | 1 | 1 | 0 | 0 |" in said
    assert re.search(r"\| leaky relu \| A slope of 0.01 below zero\. \| conv \| relu \| \d", said)


def test_a_process_that_fails_is_told(bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    measured = bench.measure("torch", [("conv", 0, None), ("no net", 0, None)])
    assert [run.net for run in measured.runs] == ["conv"]
    assert measured.problem == "its process ended with status 1 after 1 runs: KeyError: 'no net'"
    monkeypatch.setattr(bench, "measure", lambda framework, requests: measured)
    assert bench.main(["--frameworks", "torch", "--seeds", "1"]) == 1
    assert f"- torch: {measured.problem}" in capsys.readouterr().out
    for nothing in (
        ["--seeds", "0", "--fault-seeds", "0"],
        ["--seeds", "0", "--nets", "mixer", "--faults", "leaky relu"],
    ):
        with pytest.raises(SystemExit, match="2"):
            bench.main(["--frameworks", "torch", *nothing])
        assert "there is nothing to run in torch; ask for more" in capsys.readouterr().err


def test_kernels_are_chosen_from_outside(bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    for library in ("OMP", "MKL"):
        monkeypatch.setenv(f"{library}_NUM_THREADS", "2")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.setenv("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
    passed = bench.environment()
    assert passed["ATEN_CPU_CAPABILITY"] == "default"
    assert [passed[f"{library}_NUM_THREADS"] for library in ("OMP", "MKL", "OPENBLAS")] == ["2", "2", "1"]
    assert not any(name.startswith("PROTOCOL_BUFFERS_") for name in passed)
    script = "import json, torch; print(json.dumps([torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()]))"
    done = subprocess.run([sys.executable, "-c", script], env=passed, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["DEFAULT", 2]
    monkeypatch.setattr(bench, "measure", lambda framework, requests: bench.Measured())
    bench.main(["--frameworks", "torch", "--seeds", "1"])
    assert "ATEN_CPU_CAPABILITY=default, OMP_NUM_THREADS=2, " in capsys.readouterr().out
