"""The remembered errors of operations: measured again here, read by environment, and each with what it rests on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from frameworks import frameworks_under_test
from polymae.backends.operations import OPERATIONS, PRODUCTS
from polymae.cli import main
from polymae.compare.judging import operations as reading
from polymae.compare.judging.operations import known_operations, known_rows
from polymae.compare.operations.measure import LEAST
from polymae.compare.operations.profile import profile_operations
from polymae.compare.operations.rows import ACCEPTED, NOTABLE, REMEMBERED, SAME, WRONG
from polymae.compare.operations.table import depends_on
from runs import refused

ROWS = json.loads(REMEMBERED.read_text())
PAGE = Path(__file__).parent.parent / "docs" / "benchmarks" / "operations.md"
AGAIN = ("softmax", "log softmax", "cumulative sum", "tanh")


def test_remembered_errors_are_measured_again() -> None:
    frameworks = [name for name in frameworks_under_test() if name != "numpy"]
    if "torch" not in frameworks:
        pytest.skip("POLYMAE_FRAMEWORKS does not list torch, whose kernels stand beside the others")
    profile = profile_operations(frameworks, AGAIN)
    seen = set()
    for framework in frameworks:
        environment = profile.environments[framework]
        rows = list(known_rows(environment))
        for operation in (*AGAIN, *(f"{name} backward" for name in AGAIN)):
            worst = max(m.error for m in profile.measured[framework, ""] if m.operation == operation)
            known = [row["error"] for row in rows if row["operation"] == operation]
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
        start = f"| {row['operation']} | {row['error']:g} | {row['others']:g} | {row['bias']:g} | {row['inputs']} |"
        assert any(line.startswith(f"{start} {depends_on(row)} |") for line in lines), row


def environment(**changes: Any) -> dict[str, Any]:
    return {"framework": "oneflow", "version": "0.9.0", "device": "cpu", **changes}


def test_an_environment_has_the_rows_of_its_kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    row = {"framework": "oneflow", "version": "0.9.0+cpu", "device": "cpu", "operation": "softmax"}
    rows = [
        row | {"error": 19.0, "depends_on": {"onednn": ["sse41"]}},
        row | {"error": 6.0, "depends_on": {"onednn": ["avx512_core", "by itself"]}},
        row | {"error": 3.0, "operation": "exp", "depends_on": "version"},
    ]
    monkeypatch.setattr(reading.resources, "files", lambda _: tmp_path)
    (tmp_path / "operations.json").write_text(json.dumps(rows))

    def softmax(kernels: Mapping[str, str] | None = None) -> float | None:
        return known_operations(environment() | ({} if kernels is None else {"kernels": kernels})).get("softmax")

    assert (
        softmax() == softmax({}) == softmax({"openblas": "Haswell"}) == 19.0
    )  # whichever ran, it is not called a fault
    assert softmax({"onednn": "avx512_core_bf16"}) == 6.0
    assert softmax({"onednn": "sse41"}) == 19.0
    assert softmax({"onednn": "avx2"}) is None
    assert known_operations(environment())["exp"] == 3.0
    for change in ({"version": "0.9.1"}, {"device": "H200"}, {"framework": "torch"}, {"version": None}):
        assert known_operations(environment(**change)) == {}


def test_what_is_remembered_can_be_read() -> None:
    found = known_operations(environment())
    assert 8 < found["log softmax"] < 20
    assert found["log softmax backward"] > 15
    assert known_operations(environment(framework="mindspore", version="2.9.0"))["tanh"] > 200


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
    if "torch" not in frameworks_under_test():
        pytest.skip("POLYMAE_FRAMEWORKS does not list torch")
    page = tmp_path / "operations.md"
    assert main(["profile", "--operations", "exp,linear", "--frameworks", "torch", "--out", str(page)]) == 0
    said = capsys.readouterr().out
    assert "largest error of each operation" in said
    assert [line.split()[0] for line in said.splitlines() if line.startswith(("exp", "linear"))] == [
        "exp", "exp", "linear", "linear",
    ]  # fmt: skip
    assert page.read_text().startswith("# Inaccurate kernels\n\nWritten by `polymae ")
    assert "None." in page.read_text()
