"""Position tables for another image size: torch's bicubic interpolation is the judge."""

import os
import subprocess
import sys

import numpy as np
import pytest

from polymae.backends.initial import sincos_table
from polymae.convert import interpolation
from polymae.convert.interpolation import resize_positions
from polymae.convert.tensors import CheckpointProblem

# ViT-B at 384 and ViT-H at 448 pixels, shrinking, sides that are not equal, a single row, nearly the same, one patch.
GRIDS = [
    ((14, 14), (24, 24)), ((16, 16), (32, 32)), ((14, 14), (7, 7)), ((4, 6), (9, 5)), ((6, 4), (5, 11)),
    ((1, 8), (1, 3)), ((14, 14), (14, 15)), ((1, 1), (3, 3)), ((2, 2), (14, 14)),
]  # fmt: skip
JUDGE = """
import sys, numpy, torch
tables, results = numpy.load(sys.argv[1]), {}
for name, table in tables.items():
    rows, columns, *new = map(int, name.split("_"))
    patches = torch.from_numpy(table)[:, 1:].reshape(1, rows, columns, -1).permute(0, 3, 1, 2)
    patches = torch.nn.functional.interpolate(patches, size=new, mode="bicubic", align_corners=False)
    results[name] = torch.cat([torch.from_numpy(table)[:, :1], patches.permute(0, 2, 3, 1).flatten(1, 2)], 1).numpy()
numpy.savez(sys.argv[2], **results)
"""


def _tables():
    rng = np.random.default_rng(3)
    return {grids: rng.standard_normal((1, 1 + np.prod(grids[0]), 20), np.float32) for grids in GRIDS}


@pytest.fixture(scope="module", params=["default", None], ids=["portable", "this-machine"])
def judged(request, tmp_path_factory):
    """What torch makes of every table, with its portable kernel and with the one for this processor."""
    folder = tmp_path_factory.mktemp("torch")
    np.savez(folder / "in.npz", **{"_".join(map(str, (*old, *new))): t for (old, new), t in _tables().items()})
    environment = {name: value for name, value in os.environ.items() if name != "ATEN_CPU_CAPABILITY"}
    environment |= {"ATEN_CPU_CAPABILITY": request.param} if request.param else {}
    subprocess.run([sys.executable, "-c", JUDGE, folder / "in.npz", folder / "out.npz"], check=True, env=environment)
    with np.load(folder / "out.npz") as results:
        expected = [results["_".join(map(str, (*old, *new)))] for old, new in GRIDS]
    return request.param, dict(zip(GRIDS, expected))


def _units(actual, expected):
    """The largest difference in units of float32 roundoff of the largest value."""
    return np.abs(actual.astype(np.float64) - expected).max() / (2.0**-24 * np.abs(expected).max())


def test_equals_torch(judged):
    """Bit for bit where torch computes as it is written, and to roundoff where it fuses operations."""
    kernel, expected = judged
    for (old, new), table in _tables().items():
        actual = resize_positions(table, old, new)
        assert actual.dtype == np.float32
        assert actual.shape == expected[old, new].shape
        np.testing.assert_array_equal(actual[:, 0], table[:, 0])
        if kernel:
            np.testing.assert_array_equal(actual, expected[old, new], err_msg=f"{old} to {new}")
        assert _units(actual, expected[old, new]) < 50, (old, new)


def test_another_kernel_is_seen(judged, monkeypatch):
    """The kernel of a = -0.5 is refused by the same bound, at every size that interpolates at all."""
    monkeypatch.setattr(interpolation, "_A", np.float32(-0.5))
    for (old, new), table in _tables().items():
        if old != (1, 1):  # all weights add up to one, whatever the kernel
            assert _units(resize_positions(table, old, new), judged[1][old, new]) > 1e4


def test_the_same_grid_changes_nothing():
    table = sincos_table(48, (4, 4))
    resized = resize_positions(table, (4, 4), (4, 4))
    np.testing.assert_array_equal(resized, table)
    assert not np.shares_memory(resized, table)


@pytest.mark.parametrize("tokens", [15, 16, 18])
def test_a_row_more_or_less_is_refused(tokens):
    with pytest.raises(CheckpointProblem, match=rf"\(1, {tokens}, 48\).*must be \(1, 17, width\)"):
        resize_positions(np.zeros((1, tokens, 48), np.float32), (4, 4), (8, 8))


@pytest.mark.parametrize(("dtype", "new"), [(np.float64, (8, 8)), (np.float32, (0, 8))])
def test_what_is_no_table_is_refused(dtype, new):
    with pytest.raises(CheckpointProblem, match=r"float64|\(0, 8\)"):
        resize_positions(np.zeros((1, 17, 48), dtype), (4, 4), new)
