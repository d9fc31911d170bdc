"""What runs under which Python, with the oldest and the newest of what PolyMAE needs: the table of docs/benchmarks/pythons.md.

    .venv/bin/python benchmarks/python_versions.py --frameworks torch mindspore --out docs/benchmarks/pythons.md

Every Python that this machine has (tests/pythons.py) gets PolyMAE's wheel in two environments of its own. In each run the tests
that need NumPy alone; in the newest, also those frameworks that have wheels for it, each judged by `polymae compare` at all
seven levels, and PyTorch's by torch.hub. Exit status 1 where something fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from polymae.backends.installing import has_wheels, spelled
from polymae.compare.record.environment import processor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
import pythons  # noqa: E402
from pythons import NUMPY_ALONE  # noqa: E402

MODEL = "mae_vit_test_patch8"
HUB = "import sys, torch; print(type(torch.hub.load(sys.argv[1], sys.argv[2], source='local')).__module__)"
VERSIONS = (
    "import json, sys, numpy, scipy; print(json.dumps([sys.version.split()[0], numpy.__version__, scipy.__version__]))"
)


def main() -> int:
    """Run everything and write the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frameworks", nargs="*", default=[], choices=("torch", "mindspore"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = pythons.build("wheel", pythons.copied(folder / "source"))
        for version, python in {pythons.JOINT: pythons.base(), **pythons.others()}.items():
            for oldest in (True, False):
                place = folder / f"{spelled(version)}-{'oldest' if oldest else 'newest'}"
                wanted = [] if oldest else [name for name in args.frameworks if has_wheels(name, version)]
                rows.append(_row(place, python, wheel, oldest, wanted))
                if args.out:
                    args.out.write_text(_text(rows))
                print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    print(_text(rows), end="")
    return int(any("FAIL" in cell for row in rows for cell in row))


def _row(place: Path, python: str, wheel: Path, oldest: bool, frameworks: list[str]) -> list[str]:
    path = pythons.environment(place, python, wheel, oldest)
    version, numpy, scipy = json.loads(pythons.run(path, "-c", VERSIONS, cwd=place).stdout)
    options = ("-p", "no:cacheprovider", "-W", "ignore")
    done = pythons.run(path, "-m", "pytest", *options, *NUMPY_ALONE, cwd=ROOT, POLYMAE_FRAMEWORKS="numpy")
    tests = [line for line in done.stdout.splitlines() if " passed" in line or " failed" in line]
    counts = f"{'FAIL: ' if done.returncode else ''}{tests[-1].partition(' in ')[0] if tests else done.stdout[-300:]}"
    verdicts = [_judged(path, wheel, name, place) for name in frameworks]
    return [version, "oldest" if oldest else "newest", numpy, scipy, counts, "; ".join(verdicts) or "-"]


def _judged(python: Path, wheel: Path, framework: str, place: Path) -> str:
    """A framework's version, its verdict, and whether its hub loads the repository."""
    pythons.uv("pip", "install", "--quiet", "--python", python, f"polymae[{framework}] @ {wheel.as_uri()}")
    words = ("compare", "-m", MODEL, "--frameworks", framework, "--reference", "none", "--json")
    done = pythons.run(python, "-m", "polymae", *words, cwd=place)
    if done.returncode not in (0, 1):
        return f"FAIL: {framework}: {done.stderr[-300:]}"
    (row,) = json.loads(done.stdout)["frameworks"]
    verdict = f"{framework} {row['environment']['version']}, NumPy {row['environment']['numpy']}: {row['verdict']}"
    if framework == "torch":
        loaded = pythons.run(python, "-c", HUB, ROOT, "mae_vit_tiny_patch16", cwd=place)
        right = loaded.stdout.split()[-1:] == ["polymae.backends.torch.model"]
        verdict += ", torch.hub loads" if right else f", FAIL: torch.hub: {loaded.stderr[-300:]}"
    return verdict if done.returncode == 0 else f"FAIL: {verdict}"


def _text(rows: list[list[str]]) -> str:
    head = (
        "Python",
        "versions",
        "NumPy",
        "SciPy",
        "tests that need NumPy alone",
        "frameworks, `polymae compare` at seven levels",
    )
    lines = [head, ("---",) * len(head), *rows]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"""# Pythons and NumPys

Written by `benchmarks/python_versions.py`: PolyMAE's wheel in an environment of its own of each Python, once with the oldest
versions of what it needs that have wheels for that Python, once with the newest (`requirements/newest.txt`). {len(NUMPY_ALONE)}
files of tests, and the small model in each framework that has wheels.

Machine: {processor()}.

{table}
"""


if __name__ == "__main__":
    sys.exit(main())
