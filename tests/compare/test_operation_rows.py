"""From measurements to rows: which kernels are notable, on what they depend, and what is wrong and not remembered."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from children import run_in

from polymae.compare.operations import profile as profiling
from polymae.compare.operations import rows
from polymae.compare.operations.measure import Measured
from polymae.compare.operations.profile import Profile, profile_operations
from polymae.compare.operations.rows import VERSION, judged, remember, unsound
from polymae.compare.operations.settings import SETTINGS, Setting, command, fitting
from polymae.compare.operations.table import markdown, matrix
from polymae.files.errors import Problem

ONEDNN = tuple(setting for setting in SETTINGS if setting.library == "onednn")
INPUTS = "rows of 10: normal, deviation 1"
ONE = Measured("softmax", "", INPUTS, 10, 1.0, 0.1, digest="a")


def environment(name: str) -> dict[str, Any]:
    return {"framework": name, "version": "1", "device": "cpu"}


def made(measured: dict[str, list[Measured]], settings: tuple[Setting, ...] = ONEDNN) -> Profile:
    """A profile of OneFlow by setting, beside accurate kernels that have 1 u everywhere."""
    of = {("oneflow", name): listed for name, listed in measured.items()}
    exact = [replace(one, error=1.0, problem="", double=None) for one in measured[""]]
    frameworks = ("numpy", "torch", "oneflow")
    return Profile(
        ("softmax",),
        settings,
        {("numpy", ""): exact, ("torch", ""): exact} | of,
        {name: environment(name) for name in frameworks},
        {name: {} for name in frameworks},
    )


def test_a_kernel_is_notable_beside_accurate_ones() -> None:
    for error, notable in ((1.9, False), (2.1, True)):
        (row,) = [row for row in judged(made({"": [replace(ONE, error=error)]})).rows if row["framework"] == "oneflow"]
        assert (row["notable"], row["error"], row["others"], row["depends_on"]) == (notable, error, 1.0, VERSION)
    profile = made({"": [replace(ONE, error=5.0)]})
    profile.measured["numpy", ""] = profile.measured["torch", ""] = [replace(ONE, error=2.6)]
    assert not judged(profile).notable  # an input on which nobody is better


def test_products_may_sum_in_any_order() -> None:
    profile = made({"": [replace(ONE, operation=name, error=9.0) for name in ("linear", "linear backward")]})
    assert {row["operation"] for row in judged(profile).rows} == {"linear", "linear backward"}
    assert not judged(profile).notable


def test_a_row_has_the_worst_inputs_and_the_size_of_the_rest() -> None:
    listed = [
        replace(
            ONE, operation="softmax backward", argument=argument, inputs=f"rows of {width}", width=width, error=error
        )
        for argument, width, error in (("x", 10, 3.0), ("x", 50, 6.25), ("weight", 10, 1.0), ("weight", 50, 1.5))
    ]
    (row,) = judged(made({"": listed})).notable
    assert (row["error"], row["inputs"], row["bias"]) == (6.25, "rows of 50", 0.1)
    assert row["typical"] == 6.25
    assert row["gradients"] == {"x": 6.25, "weight": 1.5}
    assert row["by_width"] == {"10": 3.0, "50": 6.25}


def test_a_typical_error_is_not_exceeded_on_three_of_four_inputs() -> None:
    sizes = (1.0, 2.5, 9.0, 3.0, 0.5, 40.0, 3.5, 2.5)
    listed = [replace(ONE, inputs=f"input {i}", error=size, double=0.0) for i, size in enumerate(sizes)]
    (row,) = judged(made({"": listed})).notable
    assert (row["error"], row["typical"]) == (40.0, 3.5)


def test_what_depends_on_the_kernels_is_a_row_for_each() -> None:
    sizes = {"": 3.0, "onednn avx512_core": 3.0, "onednn avx2": 9.0, "onednn sse41": 12.0, "mkl avx2": 3.0}
    settings = (*ONEDNN, next(setting for setting in SETTINGS if setting.name == "mkl avx2"))
    profile = made({name: [replace(ONE, error=size)] for name, size in sizes.items()}, settings)
    first, second = judged(profile).notable
    assert (first["error"], first["depends_on"]) == (12.0, {"onednn": ["sse41", "avx2"]})
    assert (second["error"], second["depends_on"]) == (3.0, {"onednn": ["avx512_core"]})
    near = made({name: [replace(ONE, error=size)] for name, size in {"": 3.0, "onednn avx2": 4.4}.items()})
    (row,) = judged(near).notable
    assert (row["error"], row["depends_on"]) == (4.4, VERSION)  # the least accurate of those that are alike
    good = made({name: [replace(ONE, error=size)] for name, size in {"": 1.0, "onednn avx2": 4.4}.items()})
    (row,) = judged(good).notable
    assert row["depends_on"] == {"onednn": ["avx2"]}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"error": 19.0}, ""),
        ({"error": 21.0}, "no float64 of its own"),
        ({"error": 21.0, "double": 0.0}, ""),  # a kernel that rounds
        ({"error": 3000.0, "double": 4.0}, ""),
        ({"error": 3000.0, "double": 2900.0}, "2.9e+03 u in float64 too: its function is another"),
        ({"error": 5.0, "double": 4.9}, "its function is another"),
        ({"error": 1e5, "double": 0.0}, "at most three digits"),
        ({"problem": "3 of 9 numbers are not finite"}, "3 of 9 numbers are not finite"),
    ],
)
def test_a_fault_is_told_from_a_kernel(changes: dict[str, Any], why: str) -> None:
    assert (why in unsound(replace(ONE, **changes), 1.0)) if why else unsound(replace(ONE, **changes), 1.0) == ""


def test_what_is_accepted_needs_a_reason_and_a_bound() -> None:
    profile = made({"": [replace(ONE, error=30.0)]})
    (wrong,) = judged(profile, []).wrong
    assert wrong["inputs"] == INPUTS
    excuse = environment("oneflow") | {"operation": "softmax", "at_most": 31, "reason": "as measured elsewhere"}
    found = judged(profile, [excuse])
    assert not found.wrong
    assert found.notable[0]["accepted"] == "as measured elsewhere"
    for changed in ({"at_most": 29}, {"version": "2"}, {"operation": "exp"}, {"framework": "mindspore"}):
        assert judged(profile, [excuse | changed]).wrong
    assert "accepted" not in judged(made({"": [replace(ONE, error=3.0)]}), [excuse]).notable[0]


def test_only_what_is_sound_is_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "operations.json"
    monkeypatch.setattr(rows, "REMEMBERED", path)
    other = {**environment("megengine"), "operation": "softmax", "error": 3.0}
    older = [{**environment("oneflow"), "operation": name, "error": 7.0} for name in ("softmax", "exp", "log")]
    path.write_text(json.dumps([other, *older]))
    listed = [
        replace(ONE, error=4.0),
        replace(ONE, operation="exp", error=1e5),  # wrong now
        replace(ONE, operation="sin", error=1.0),
    ]
    profile = made({"": listed}, SETTINGS)
    remember(judged(profile), profile)
    kept = {(row["framework"], row["operation"]): row for row in json.loads(path.read_text())}
    assert set(kept) == {("megengine", "softmax"), ("oneflow", "softmax"), ("oneflow", "log")}
    assert kept["oneflow", "softmax"]["error"] == 4.0
    assert "notable" not in kept["oneflow", "softmax"]
    with pytest.raises(Problem, match="add --settings"):
        remember(judged(profile), replace(profile, settings=()))
    older = tuple(setting for setting in SETTINGS if setting.needs != "AVX-512")
    with pytest.raises(Problem, match=r"without the kernels onednn avx512_core, aten AVX512, .* on one with AVX-512"):
        remember(judged(profile), replace(profile, settings=older))


PLANTED = """
import numpy as np, torch, torch.nn.functional as F
from polymae.backends.torch import operations
from polymae.compare.operations import measure
operations.OPERATIONS.update({planted})
measure.main()
"""


def planted(monkeypatch: pytest.MonkeyPatch, table: str) -> None:
    """Have PyTorch's processes run with other functions in the table; the oracle is NumPy's."""

    def changed(setting: Setting, module: str) -> list[str]:
        return [*command(setting, module)[:-2], "-c", PLANTED.replace("{planted}", table)]

    run_in("torch", "import torch")  # skips without it
    monkeypatch.setattr(profiling, "command", changed)


def test_a_wrong_operation_is_not_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another GELU, and an eps that costs 75 u on some inputs and 5 u on others: as wrong in float64."""
    monkeypatch.setattr(rows, "REMEMBERED", tmp_path / "operations.json")
    (tmp_path / "operations.json").write_text("[]")
    names = ("gelu", "group norm", "exp")
    planted(
        monkeypatch,
        "{'gelu': lambda x: F.gelu(x, approximate='tanh'),"
        " 'group norm': lambda x, w, b: F.group_norm(x, 4, w, b, eps=1.1e-5)}",
    )
    profile = profile_operations(["torch"], names)
    found = judged(profile)
    places = {(row["operation"], row["inputs"]) for row in found.wrong}
    assert {("gelu", "normal, deviation 1"), ("gelu", "normal, deviation 4")} <= places
    assert ("group norm", "8 x 16 x 14 x 14: normal, deviation 1") in places
    assert any("its function is another" in row["why"] for row in found.wrong)
    remember(found, replace(profile, settings=SETTINGS))
    kept = json.loads((tmp_path / "operations.json").read_text())
    assert not [row for row in kept if row["error"] > 6]
    assert "exp" not in {row["operation"] for row in found.wrong}
    page = markdown(profile, found, "polymae profile")
    assert "| torch 2.13.0" in page
    assert "its function is another" in page
    frameworks, cells = matrix(profile, found)
    assert frameworks == ["torch"]
    assert "wrong" in dict(cells)["gelu"]


def test_an_operation_that_raises_or_ends_its_process_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, "{'exp': lambda x: 1 / 0, 'sin': lambda x: __import__('os')._exit(7)}")
    profile = profile_operations([], ("cos", "exp", "sin", "log"))
    listed = profile.measured["torch", ""]
    problems = {one.operation: one.problem for one in listed if one.problem}
    assert problems["exp"] == "ZeroDivisionError: division by zero"
    assert problems["sin"].startswith("the process ended: ")
    right = {"cos", "cos backward", "log", "log backward"}
    assert {one.operation for one in listed if not one.problem} == right
    assert {row["operation"] for row in judged(profile).wrong} == {"exp", "sin"}


def test_settings_are_for_this_machine() -> None:
    avx2 = ("avx", "avx2", "fma", "sse2")
    names = {setting.name for setting in SETTINGS if setting.fits(avx2)}
    assert {"onednn avx2", "openblas Haswell", "aten DEFAULT"} <= names
    assert not {"onednn avx512_core", "openblas SkylakeX", "aten AVX512"} & names
    assert {"onednn sse41", "mkl compatible"} <= {setting.name for setting in SETTINGS if setting.fits(("sse2",))}
    assert not any(setting.fits(()) for setting in SETTINGS)  # no x86-64
    assert set(fitting()) <= set(SETTINGS)
    words = command(SETTINGS[0], "a.module", "python")
    assert words[-3:] == ["python", "-m", "a.module"]
    assert "ONEDNN_MAX_CPU_ISA=SSE41" in words
    assert words[words.index("OPENBLAS_CORETYPE") - 1] == "-u"
