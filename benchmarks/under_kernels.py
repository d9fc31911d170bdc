"""The demo, and the tests that compare numbers, under the kernels of many CPUs: is anything green on one CPU and red on another?

    .venv/bin/python benchmarks/under_kernels.py --out docs/benchmarks/kernels.md

Every setting of kernel_settings.py runs what `make demo` runs (base/16, seven levels, five frameworks, two photographs) and the
tests below. Exit status 1 where a framework is called wrong or a test fails.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from kernel_settings import HERE, under, variables_table

from polymae.compare.record.environment import processor

ROOT = Path(__file__).resolve().parent.parent
MODEL = "mae_vit_base_patch16"
# The tests whose numbers come out of kernels.
TESTS = (
    "chains", "compiled", "compiled_torch", "encode", "explained", "families", "head_norm", "injected", "intercepted",
    "library", "library_kernels", "localise", "optimizer", "oracle", "own_nets", "parity", "preprocessing", "third_party",
    "training", "trust",
)  # fmt: skip
COLUMNS = ("setting", "framework", "verdict", "end to end, at", "alone, at", "explained by", "product of 2,048 terms")


def main() -> int:
    """Run every setting and write the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", nargs="+", default=HERE, choices=HERE)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--only", choices=("demo", "tests"), help="one of the two")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows: list[list[str]] = []
    tests: list[list[str]] = []
    bad = 0
    for setting in args.settings:
        with under(setting):
            if args.only != "tests":
                verdicts = _demo(args.model)
                rows += [[setting, *row] for row in verdicts]
                bad += sum(row[1] not in ("exact", "roundoff", "explained") for row in verdicts)
            if args.only != "demo":
                status, ending = _tests()
                tests.append([setting, "pass" if status == 0 else "FAIL", ending])
                bad += status != 0
        text = _text(args.model, rows, tests)
        print(f"{setting}: done", file=sys.stderr, flush=True)
        if args.out:
            args.out.write_text(text)
    print(text, end="")
    return int(bad > 0)


def _demo(model: str) -> list[list[str]]:
    """A row of the report for each framework."""
    images = [str(path) for path in sorted((ROOT / "demo" / "photos").glob("*.jpg"))]
    with tempfile.TemporaryDirectory(prefix="polymae-") as folder:
        command = [
            sys.executable,
            "-m",
            "polymae",
            "compare",
            "--model",
            model,
            "--images",
            *images,
            "--out",
            folder,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        report = Path(folder) / "report.json"
        if not report.exists():
            return [["all", f"exit status {done.returncode}", "", "", "", done.stderr.strip().splitlines()[-1]]]
        return [_row(judgement) for judgement in json.loads(report.read_text())["frameworks"]]


def _row(judgement: dict[str, Any]) -> list[str]:
    findings = judgement["tensors"]
    ends = []
    for error, limit in (("error", "limit"), ("introduced", "introduced_limit")):
        judged = [finding for finding in findings if finding.get(limit)]
        nearest = max(judged, key=lambda finding: finding[error] / finding[limit], default=None)
        ends.append(f"{nearest[error] / nearest[limit]:.2f} `{nearest['name']}`" if nearest else "")
    explained = {finding["operation"] for finding in findings if finding["verdict"] == "explained"}
    count = sum(finding["verdict"] == "explained" for finding in findings)
    why = f"{judgement['explained_by']}: {count} tensors ({', '.join(sorted(explained))})" if explained else ""
    kernels = judgement["environment"].get("kernels", {})
    return [judgement["framework"], judgement["verdict"], *ends, why, str(kernels.get("product", ""))]


def _tests() -> tuple[int, str]:
    """Exit status and last line of the tests."""
    files = [str(path) for name in TESTS for path in ROOT.glob(f"tests/*/test_{name}.py")]
    command = [sys.executable, "-m", "pytest", "-n2", "--dist", "loadfile", "-W", "ignore", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout, file=sys.stderr)  # why, which the table has no room for
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR")) or " passed" in line]
    return done.returncode, "; ".join(lines)


def _text(model: str, rows: list[list[str]], tests: list[list[str]]) -> str:
    lines = [
        "# Under the kernels of many CPUs",
        "",
        f"Written by `benchmarks/under_kernels.py` ({time.strftime('%Y-%m-%d')}): what `make demo` runs (`{model}`), and the",
        "tests whose numbers come out of kernels. Ratios are error over limit: above 1 would be a fault.",
        "",
        f"Machine: {processor()}, Python {platform.python_version()}, one thread.",
        "",
    ]
    for columns, table in ((COLUMNS, rows), (("setting", "tests", "of them"), tests)):
        if table:
            lines += [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
            lines += [f"| {' | '.join(row)} |" for row in table] + [""]
    lines += variables_table(dict.fromkeys(row[0] for row in (*rows, *tests)))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
