"""The remembered errors of operations: measured again here, read by environment, and each with what it rests on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from frameworks import frameworks_under_test
from repository import ROOT
from runs import refused
from untested import require

from polymae.backends.operations import OPERATIONS, PRODUCTS
from polymae.cli import main
from polymae.compare.judge.kernels import holds, known_kernels, known_operations, named_version, nearest
from polymae.compare.operations.measure import LEAST
from polymae.compare.operations.profile import profile_operations
from polymae.compare.operations.rows import ACCEPTED, NOTABLE, REMEMBERED, SAME, WRONG
from polymae.compare.operations.table import depends_on

ROWS = json.loads(REMEMBERED.read_text())
PAGE = ROOT / "docs" / "benchmarks" / "operations.md"
AGAIN = ("softmax", "log softmax", "cumulative sum", "tanh")


def test_remembered_errors_are_measured_again() -> None:
    frameworks = [name for name in frameworks_under_test() if name != "numpy"]
    require("torch")  # whose kernels stand beside the others
    profile = profile_operations(frameworks, AGAIN)
    seen = set()
    for framework in frameworks:
        environment = profile.environments[framework]
        for operation in (*AGAIN, *(f"{name} backward" for name in AGAIN)):
            worst = max(m.error for m in profile.measured[framework, ""] if m.operation == operation)
            known = [row["error"] for row in of(environment, operation)]
            if known:  # that of one of the kernels where it depends on these
                assert any(size / SAME <= worst <= size * SAME for size in known), (framework, operation, worst, known)
                seen.add((framework, operation))
            else:
                assert worst <= max(LEAST, 3.5), (framework, operation, worst)  # as PyTorch's or NumPy's own
    expected = {("oneflow", "log softmax"), ("mindspore", "softmax"), ("mindspore", "tanh"), ("megengine", "softmax")}
    assert {place for place in expected if place[0] in frameworks} <= seen


def test_every_row_is_sound() -> None:
    accepted = {(row["framework"], row["operation"]): row for row in json.loads(ACCEPTED.read_text())}
    assert {row["framework"] for row in ROWS} == {"torch", "megengine", "mindspore", "oneflow"}
    for row in ROWS:
        name = row["operation"].removesuffix(" backward")
        assert name in OPERATIONS
        assert name not in PRODUCTS
        assert row["error"] > max(LEAST, NOTABLE * row["others"]), row
        proven = row["float64"] <= row["error"] / 2 if "float64" in row else row["error"] <= WRONG
        assert proven or (row["framework"], row["operation"]) in accepted, row
        assert row["typical"] <= row["error"]
        assert row["bias"] <= 1.01 * row["error"]
        assert row["inputs"]


def test_nothing_is_accepted_without_need() -> None:
    errors = {(row["framework"], row["operation"]): row["error"] for row in ROWS}
    for row in json.loads(ACCEPTED.read_text()):
        assert row["reason"].endswith(".")
        size = errors[row["framework"], row["operation"]]
        assert size > 0.9 * WRONG or row["operation"] == "mish backward"
        assert row["at_most"] < 2 * size


def test_the_page_has_the_remembered_rows() -> None:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    for row in ROWS:
        sizes = " | ".join(f"{row[name]:g}" for name in ("error", "typical", "others", "bias"))
        start = f"| {row['operation']} | {sizes} | {row['inputs']} |"
        assert any(line.startswith(f"{start} {depends_on(row)} |") for line in lines), row


def test_what_is_remembered_is_read() -> None:
    where = {"framework": "oneflow", "version": "0.9.0", "device": "cpu"}
    found = known_operations(where)
    assert found["log softmax"].worst == max(row["error"] for row in of(where, "log softmax")) > 8
    assert found["log softmax"].typical == max(row["typical"] for row in of(where, "log softmax"))
    assert found["log softmax"].inputs.startswith("rows of 10")
    assert known_operations(where | {"framework": "newflow"}) == {}
    mindspore = known_operations({"framework": "mindspore", "version": "2.9.0", "device": "cpu"})
    assert mindspore["tanh"].worst > 200
    assert mindspore["softmax"].typical > 8


def test_a_version_that_was_not_measured_goes_by_the_nearest() -> None:
    assert nearest("2.10.0", {"2.9.0", "2.8.3", "2.11.0"}) == "2.9.0"
    assert nearest("2.10.0", {"2.11.0", "2.12.0"}) == "2.11.0"
    assert nearest("2.10.0", {"2.10.0", "2.9.0"}) == "2.10.0"
    assert nearest("2.10.0rc1", set()) == ""
    where = {"framework": "mindspore", "version": "2.9.0", "device": "cpu"}
    later = where | {"version": "2.10.0"}
    assert known_kernels(later) == known_kernels(where) != {}
    assert known_operations(later) == known_operations(where)
    assert known_kernels(later | {"device": "ascend"}) == {}
    assert (named_version(where), named_version(later)) == ("2.9.0", "2.10.0 (as measured in 2.9.0)")
    assert named_version({"framework": "newflow", "version": "1", "device": "cpu"}) == "1"
    assert named_version({"framework": "torch", "version": "2.13.0+cpu", "device": "cpu"}) == "2.13.0+cpu"


def test_the_kernels_that_ran_choose_the_row() -> None:
    """Where the error depends on them; PyTorch says which of its own it takes."""
    where = {"framework": "torch", "version": of({"framework": "torch"}, "softmax")[0]["version"], "device": "cpu"}
    old, new = (known_operations(where | {"kernels": {"aten": name}})["softmax"].worst for name in ("AVX2", "AVX512"))
    assert old > SAME * new
    assert known_operations(where)["softmax"].worst == old  # whichever ran, a right port is not called wrong
    for name, expected in (("avx512_core", True), ("avx512_core_vnni", True), ("avx2", False), ("avx512", False)):
        assert holds({"onednn": ["avx512_core"]}, {"onednn": name}) is expected


def of(where: Mapping[str, Any], operation: str) -> list[dict[str, Any]]:
    """The remembered rows of an operation in an environment."""
    return [row for row in ROWS if row["operation"] == operation and row["framework"] == where["framework"]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--settings",), "--settings is for --operations"),
        (("--out", "a.md"), "--out is for --operations"),
        (("--operations", "--model", "vit_test_patch8"), "leave out --model"),
        (("--operations", "--device", "cuda"), "on a CPU, not on cuda"),
        (("--operations", "--remember"), "add --settings"),
        (("--operations", "--out", "/no/such/folder/a.md"), "is no folder"),
        (("--operations", "sofmax"), "Unknown operation 'sofmax'"),
        (("--operations", "--frameworks", "numpy"), "Unknown framework with operations 'numpy'"),
    ],
)
def test_options_that_have_no_meaning_are_refused(
    options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, "profile", *options)


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require("torch")
    page = tmp_path / "operations.md"
    assert main(["profile", "--operations", "exp,linear", "--frameworks", "torch", "--out", str(page)]) == 0
    said = capsys.readouterr().out
    assert "largest error of each operation" in said
    assert [line.split()[0] for line in said.splitlines() if line.startswith(("exp", "linear"))] == [
        "exp", "exp", "linear", "linear",
    ]  # fmt: skip
    assert page.read_text().startswith("# Inaccurate kernels\n\nWritten by `polymae ")
    assert "None." in page.read_text()
