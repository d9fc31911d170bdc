"""Trace files: whole or not there at all, and nothing else is taken for one."""

import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import children
import numpy as np
import pytest
from numpy.typing import NDArray
from runs import CONFIG, MODEL, inputs, oracle

from polymae.backends.config import ViTConfig
from polymae.compare.trace import MANIFEST, Trace, TraceProblem, write_trace

WHOLE: dict[str, object] = {
    "framework": "numpy",
    "config": {"kind": "MAEConfig", "img_size": [224, 224]},
    "mask_ratio": 0.75,
    "dtype": "float32",
    "levels": ["forward"],
    "taps": None,
    "environment": {"framework": "numpy", "version": "1", "device": "cpu"},
    "inputs": {"imgs": "0"},
    "images": None,
    "training": None,
    "source": "0",
    "weights": {"cls_token": "0"},
    "seed": 0,
    "twin": None,
    "kernel_noise": None,
    "fault": None,
}


def tensors(count: int, then: BaseException | None = None) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for i in range(count):
        yield f"tap{i}", np.full((4, 5), i, np.float32)
    if then:
        raise then


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "t.npz"
    manifest = WHOLE | {"mask_ratio": 0.5, "own": [1, None]}
    odd = {"scalar": np.float64(3), "ids": np.arange(3), "flag": np.array([], bool), "turned": np.eye(3)[:, ::-1].T}
    write_trace(path, manifest, odd.items())
    trace = Trace(path)
    assert trace.manifest == {"format": 3, **manifest}
    assert trace.names == list(odd)
    assert "ids" in trace
    assert MANIFEST not in trace
    for name, array in odd.items():
        assert trace[name].dtype == np.asarray(array).dtype
        np.testing.assert_array_equal(trace[name], array)
    with np.load(path, allow_pickle=False) as plain:  # NumPy alone reads it
        assert set(plain.files) == {*odd, MANIFEST}
    assert [file.name for file in path.parent.iterdir()] == ["t.npz"]
    with pytest.raises(TraceProblem, match="holds no pred"):
        trace["pred"]


def test_large_tensors_of_the_oracle_take_less_place(tmp_path: Path) -> None:
    path, large = tmp_path / "t.npz", np.random.default_rng(0).standard_normal((2, 400, 300))
    large[0, :3, 0] = np.nan, -np.inf, 1e308
    tensors = {"large": large.swapaxes(0, 2), "small": large[0, :10], "single": np.float32(large[1])}
    write_trace(path, WHOLE, tensors.items())
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("large.npy").compress_size < 0.8 * large.nbytes
    found = {name: Trace(path)[name] for name in tensors}
    np.testing.assert_array_equal(found["small"], tensors["small"])
    np.testing.assert_array_equal(found["single"], tensors["single"])
    np.testing.assert_allclose(found["large"], tensors["large"], rtol=2.0**-36, atol=0)


def test_the_configuration_comes_back(tmp_path: Path) -> None:
    assert Trace(oracle()).config == CONFIG
    vit = {
        "kind": "ViTConfig",
        "img_size": [16, 32],
        "patch_size": 8,
        "embed_dim": 12,
        "num_heads": 3,
        "pooling": "cls",
    }
    write_trace(tmp_path / "v.npz", WHOLE | {"config": vit}, ())
    assert Trace(tmp_path / "v.npz").config == ViTConfig((16, 32), 8, embed_dim=12, num_heads=3, pooling="cls")


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt(), MemoryError()])
def test_a_failure_midway_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "t.npz"
    with pytest.raises(type(error)):
        write_trace(path, WHOLE, tensors(3, error))
    assert not list(tmp_path.iterdir())
    write_trace(path, WHOLE, tensors(2))
    before = path.read_bytes()
    with pytest.raises(type(error)):
        write_trace(path, WHOLE, tensors(3, error))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    write_trace(path, WHOLE, tensors(3))
    assert Trace(path).names == ["tap0", "tap1", "tap2"]


def test_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pickle"):
        write_trace(tmp_path / "t.npz", WHOLE, [("tap", np.array([{}, None]))])
    assert not list(tmp_path.iterdir())


def files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that are no traces, by what they are, with what must be said of them."""
    whole = folder / "whole.npz"
    write_trace(whole, WHOLE, tensors(3))
    content = whole.read_bytes()
    text = json.dumps({"format": 3, **WHOLE})
    np.savez(folder / "list.npz", **{MANIFEST: np.array("[1]")})
    np.savez(folder / "words.npz", **{MANIFEST: np.array("no JSON")})
    np.savez(folder / "numbers.npz", **{MANIFEST: np.arange(3)})
    np.savez(folder / "later.npz", **{MANIFEST: np.array(text.replace('"format": 3', '"format": 4'))})
    np.savez(folder / "fields.npz", **{MANIFEST: np.array('{"format": 3, "framework": "numpy"}')})
    np.savez(folder / "objects.npz", **{MANIFEST: np.array([{}])})
    np.save(folder / "array.npy", np.arange(3))
    (folder / "empty.npz").touch()
    (folder / "cut.npz").write_bytes(content[: len(content) // 2])
    (folder / "cut in the end.npz").write_bytes(content[:-10])
    (folder / "page.npz").write_text("<!DOCTYPE html><html>404</html>")
    (folder / "text.npz").write_text("hello")
    with zipfile.ZipFile(folder / "archive.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    said = {
        "later.npz": "format 4",
        "list.npz": "no JSON object",
        "fields.npz": "does not say its config, mask_ratio",
        "none.npz": "No trace",
    }
    names = [file.name for file in folder.iterdir() if file != whole]
    return {name: (folder / name, said.get(name, "not a whole trace")) for name in [*names, "none.npz"]}


def test_other_files_are_no_traces(tmp_path: Path) -> None:
    found = files(tmp_path) | {"a folder": (tmp_path, "not a whole trace")}
    assert len(found) == 15
    for path, said in found.values():
        with pytest.raises(TraceProblem, match=said) as problem:
            Trace(path)
        assert path.name in str(problem.value)


def test_a_member_held_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    write_trace(path, WHOLE, tensors(2))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("tap1.npy", archive.read("tap0.npy"))
    with pytest.raises(TraceProblem, match="holds tap1 twice"):
        Trace(path)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    write_trace(path, WHOLE, [("tap", np.full(1000, 7.0))])
    content = bytearray(path.read_bytes())
    place = content.index(np.float64(7).tobytes() * 4)
    content[place] ^= 1
    path.write_bytes(content)
    trace = Trace(path)
    with pytest.raises(TraceProblem, match=r"tap in .* is damaged"):
        trace["tap"]


def test_a_full_disk(tmp_path: Path) -> None:
    out = tmp_path / "out" / "t.npz"
    arguments = ["record", "--framework", "numpy", "-m", MODEL, "--inputs", str(inputs()), "--out", str(out)]
    script = (
        "import resource, sys; from polymae.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        f"sys.exit(main({arguments!r}))"
    )
    done = children.run([sys.executable, "-c", script], text=True)
    assert done.returncode == 2
    assert "free space" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())  # nor the folder made for it


@pytest.mark.parametrize(
    "wrong",
    [
        {"config": {}},
        {"config": {"kind": "MAEConfig", "img_size": [32, 32], "colour": 1}},
        {"weights": None},
        {"config": 3},
    ],
)
def test_a_manifest_of_the_wrong_shape_is_told(tmp_path: Path, wrong: dict[str, object]) -> None:
    write_trace(tmp_path / "t.npz", WHOLE | wrong, tensors(1))
    with pytest.raises(TraceProblem, match="wrong manifest"):
        Trace(tmp_path / "t.npz")
