"""An OpenBLAS that does not know its CPU is recognised, and the worker processes get the right kernels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from runs import MODEL, inputs

from polymae.backends import blas
from polymae.backends.blas import (
    CORES,
    CORETYPE,
    GENERATIONS,
    ONEDNN_CAP,
    generation,
    is_fallback,
    onednn_kernels,
    slow_kernels,
    variables,
)
from polymae.compare.options import Run
from polymae.compare.record.child import record_in_process
from polymae.compare.trace import Trace

AVX512 = sorted(GENERATIONS["AVX-512"][0] | GENERATIONS["AVX2"][0] | {"avx", "sse2"})
AVX2 = ["avx", "avx2", "fma", "sse2"]


@pytest.fixture
def unknown_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """NumPy's OpenBLAS as it is on a CPU younger than itself."""
    monkeypatch.delenv(CORETYPE, raising=False)
    monkeypatch.setattr(blas, "openblas_cores", lambda: {"numpy": "Prescott", "scipy": "SkylakeX"})
    monkeypatch.setattr(blas, "cpu_flags", lambda: tuple(AVX512))
    blas.fallback.cache_clear()
    yield
    blas.fallback.cache_clear()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (AVX512, "AVX-512"),
        (AVX2, "AVX2"),
        (["avx", "avx2", "sse2"], "AVX"),
        (["sse2"], "SSE"),
        (["asimd"], ""),
        ([], ""),
    ],
)
def test_the_generation_of_a_cpu(flags: list[str], expected: str) -> None:
    assert generation(flags) == expected


def test_an_avx512_cpu_without_all_of_it_has_no_such_kernels() -> None:
    assert generation([flag for flag in AVX512 if flag != "avx512vl"]) == "AVX2"  # Knights Landing


@pytest.mark.parametrize(
    ("core", "flags", "expected"),
    [
        ("Prescott", AVX512, True),  # NumPy 1.26 on an Intel Xeon of 2023
        ("Barcelona", AVX512, True),  # OneFlow 0.9 on an AMD EPYC of 2024
        ("Nehalem", AVX2, True),
        ("Sandybridge", AVX2, True),
        ("Haswell", AVX512, False),  # slower than it could be, and chosen by somebody
        ("Zen", AVX2, False),
        ("Prescott", ["sse2"], False),
        ("Sandybridge", ["avx", "sse2"], False),
        ("ARMV8", ["asimd"], False),
        ("ANewCore", AVX512, False),
        ("", AVX512, False),
    ],
)
def test_a_core_for_an_older_cpu_is_a_fallback(core: str, flags: list[str], expected: bool) -> None:
    assert is_fallback(core, flags) is expected


def test_a_core_is_of_one_generation() -> None:
    names = [core for cores in CORES.values() for core in cores]
    assert len(names) == len(set(names))
    assert {core for _, candidates in GENERATIONS.values() for core in candidates} <= set(names)


def test_the_fastest_core_whose_products_are_right_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = "import os\nassert os.environ['OPENBLAS_CORETYPE'] != 'SkylakeX'"  # as a kernel that dies there
    monkeypatch.setattr(blas, "_CHECK", wrong)
    blas.fitting_core.cache_clear()
    assert blas.fitting_core(tuple(AVX512)) == "Haswell"
    monkeypatch.setattr(blas, "_CHECK", "raise SystemExit(1)")
    blas.fitting_core.cache_clear()
    assert blas.fitting_core(tuple(AVX512)) == ""
    blas.fitting_core.cache_clear()


def test_the_check_notices_a_wrong_product() -> None:
    """The check that a core must pass, on this machine's kernels and on a product that is slightly wrong."""
    code = blas._CHECK.replace("a @ b -", "1.00001 * (a @ b) -")
    assert code != blas._CHECK
    exec(compile(blas._CHECK, "check", "exec"), {})
    with pytest.raises(AssertionError):
        exec(compile(code, "check", "exec"), {})


def test_what_the_user_has_chosen_stays(unknown_cpu: None) -> None:
    assert variables("numpy", {CORETYPE: "Prescott"}) == {}
    assert variables("oneflow", {CORETYPE: "Nehalem"}) == {}


def test_only_a_framework_that_needs_it_gets_other_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "fallback", lambda: "")
    monkeypatch.setattr(blas, "cpu_flags", lambda: tuple(AVX2))
    assert variables("numpy", {}) == variables("torch", {}) == {}
    assert variables("oneflow", {}) == {CORETYPE: "Haswell"}
    monkeypatch.setattr(blas, "cpu_flags", lambda: ("asimd",))
    assert variables("oneflow", {}) == {}


def test_a_onednn_that_cannot_be_asked_takes_the_newest_below_its_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, newest in ((AVX512, "avx512_core"), (AVX2, "avx2"), (("asimd",), "")):
        monkeypatch.setattr(blas, "cpu_flags", lambda flags=flags: tuple(flags))
        assert onednn_kernels({}) == onednn_kernels({ONEDNN_CAP: "ALL"}) == newest
        assert onednn_kernels({ONEDNN_CAP: "SSE41"}) == (newest and "sse41")
        assert onednn_kernels({ONEDNN_CAP: "AVX512_CORE"}) == newest  # a cap gives no CPU what it lacks


def test_a_worker_gets_the_right_kernels_and_its_trace_says_so(unknown_cpu: None, tmp_path: Path) -> None:
    flags = Path("/proc/cpuinfo").read_text()
    usable = "SkylakeX" if all(flag in flags for flag in GENERATIONS["AVX-512"][0]) else "Haswell"
    assert variables("numpy", {}) == {CORETYPE: usable}
    assert CORETYPE not in os.environ
    outcome = record_in_process(Run("numpy", tmp_path / "t.npz", inputs(), model=MODEL))
    assert outcome.trace, outcome.reason
    environment = Trace(outcome.trace).manifest["environment"]
    assert environment["kernels"]["numpy's openblas"] == usable
    assert environment["variables"][CORETYPE] == usable


def test_what_is_said_of_slow_kernels(unknown_cpu: None) -> None:
    said = slow_kernels("NumPy's", "Prescott", {})
    assert "does not know this CPU, which has AVX-512, and fell back to the kernels for Prescott" in said
    assert "OPENBLAS_CORETYPE=" in said
    asked = slow_kernels("NumPy's", "Prescott", {CORETYPE: "Prescott"})
    assert asked.endswith("as OPENBLAS_CORETYPE=Prescott asks; this CPU has AVX-512: unset it.")
    assert slow_kernels("NumPy's", "Haswell", {}) == ""


@pytest.mark.parametrize("core", ["Prescott", "Haswell"])
def test_a_trace_says_which_kernels_ran(
    core: str, framework: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CORETYPE, core)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2" if core == "Haswell" else "SSE41")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2" if core == "Haswell" else "default")
    outcome = record_in_process(Run(framework, tmp_path / "t.npz", inputs(), model=MODEL, levels=("weights",)))
    assert outcome.trace, outcome.reason
    kernels = Trace(outcome.trace).manifest["environment"]["kernels"]
    assert kernels["numpy's openblas"] == core
    assert kernels["cpu"].split() == list(blas.cpu_flags())
    assert " u of 2048 terms, " in kernels["product"]
    named = {
        "numpy": {"openblas": core},
        "oneflow": {"openblas": core},
        "mindspore": {"onednn": "avx2" if core == "Haswell" else "sse41"},
        "torch": {"aten": "AVX2" if core == "Haswell" else "DEFAULT"},
        "megengine": {},
    }[framework]
    assert named.items() <= kernels.items()
