"""Traces with any other manifest, or any other bytes: refused or judged as before, never a traceback, never better."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from broken import TINY, npy, rewritten, small_inputs
from drawn import count
from mutants.recording import Mutant, record_mutant

from polymae.compare.manifest import FIELDS
from polymae.compare.offline import compare_traces
from polymae.compare.options import Comparison
from polymae.compare.trace import Trace
from polymae.files.errors import Problem

LEVELS = ("weights", "forward", "loss")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Traces of a very small model: the oracle, two twins, a right candidate and a wrong one."""
    where = tmp_path_factory.mktemp("small")
    runs: dict[str, dict[str, Any]] = {
        "oracle": {"dtype": "float64"},
        "twin1": {"twin": 1},
        "twin2": {"twin": 2},
        "right": {},
        "wrong": {"fault": "tanh gelu"},
    }
    for name, fields in runs.items():
        record_mutant(Mutant("numpy", where / f"{name}.npz", small_inputs(where), model=TINY, levels=LEVELS, **fields))
    return {name: where / f"{name}.npz" for name in runs}


def exit_status(*paths: Path) -> int:
    """Of a comparison; 2 where there is none. Raises only what would be a traceback."""
    try:
        return compare_traces(paths, Comparison(levels=LEVELS, reference=None)).exit_status
    except Problem:
        return 2


# Fields of which other values are as good, where they do not decide what a trace is compared with.
FREE = {"framework", "device", "seed", "images", "training", "twin"}


@pytest.mark.parametrize("role", ["oracle", "right"])
def test_a_manifest_of_other_types(role: str, small: dict[str, Path], tmp_path: Path) -> None:
    manifest, paths = Trace(small[role]).manifest, dict(small)
    del paths["wrong"]
    assert exit_status(*paths.values()) == 0
    for name in (*FIELDS, "format", "device", "all of it"):
        for value in (None, 3, [], {}, "x"):
            changed = value if name == "all of it" else manifest | {name: value}
            paths[role] = rewritten(small[role], tmp_path / "t.npz", manifest=npy(np.array(json.dumps(changed))))
            status = exit_status(*paths.values())
            same = name in manifest and manifest[name] == value
            assert status in (0, 1, 2) if same or name in FREE else status == 2, (name, value)
            if status == 0 and not same:
                Trace(paths[role])  # what was judged is whole


def test_a_config_of_other_types(small: dict[str, Path], tmp_path: Path) -> None:
    manifest = Trace(small["right"]).manifest
    for name in manifest["config"]:
        for value in (None, -3, [], "x", 10**30, float("nan")):
            config = manifest["config"] | {name: value}
            path = rewritten(
                small["right"], tmp_path / "t.npz", manifest=npy(np.array(json.dumps(manifest | {"config": config})))
            )
            for paths in ([small["oracle"], path], [path, small["right"]]):
                status = exit_status(*paths)
                assert status == 2 or (name == "block_norm_eps" and value is None), (name, value)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"format": 3' + ', "x": 1' * 10, "1e999", "nul", "", '"' * 7, "\ud800"]
)
def test_a_manifest_that_is_no_json(text: str, small: dict[str, Path], tmp_path: Path) -> None:
    path = rewritten(small["right"], tmp_path / "t.npz", manifest=npy(np.array(text)))
    assert exit_status(small["oracle"], path) == 2


@pytest.mark.drawn
@pytest.mark.parametrize("role", ["oracle", "twin1", "wrong"])
def test_wrong_bytes_never_help(role: str, small: dict[str, Path], tmp_path: Path) -> None:
    """A wrong run stays wrong, or cannot be judged, whichever bytes of a trace are others."""
    content, rng = small[role].read_bytes(), np.random.default_rng(len(role))
    names = [name for name in small if name != "right"]
    assert exit_status(*(small[name] for name in names)) == 1
    directory = content.index(b"PK\x01\x02")  # of the archive, which no checksum guards
    for i in range(count(60)):
        wrong, start = bytearray(content), directory if i % 2 else 0
        for place in rng.integers(start, len(content), size=rng.integers(1, 4)):
            wrong[place] = rng.integers(256)
        if i % 10 == 0:
            del wrong[rng.integers(len(wrong)) :]
        path = tmp_path / "t.npz"
        path.write_bytes(wrong)
        assert exit_status(*(path if name == role else small[name] for name in names)) in (1, 2, 3), i
