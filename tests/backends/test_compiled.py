"""The other frameworks' ways to compile a model: which outputs are bit for bit those of the eager model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_use import POOLINGS, VIT, Array, arrays, assert_same, called, needs

from polymae.backends.denormals import keep_denormals
from polymae.backends.inputs import InputError
from polymae.backends.runtime import load_backend
from polymae.compare.limits.metrics import error

# MegEngine


@pytest.fixture(autouse=True)
def keep() -> Iterator[None]:
    """MegEngine's compiler leaves the thread that calls it flushing denormal numbers to zero."""
    yield
    keep_denormals()


def assert_near(found: Any, expected: Any) -> None:
    """Fused kernels: within some units of roundoff, decisions bit for bit."""
    mine, theirs = arrays(found), arrays(expected)
    assert [a.shape for a in mine] == [a.shape for a in theirs]
    assert all(error(a, b.astype(np.float64)) < 16 for a, b in zip(mine, theirs))  # up to 8 were measured
    if len(mine) == 3:
        np.testing.assert_array_equal(mine[2], theirs[2])


@pytest.mark.parametrize("symbolic", [False, True])
def test_megengine_trace(symbolic: bool) -> None:
    mge = needs("megengine")
    model, imgs, given = called("megengine")
    compiled = mge.jit.trace(lambda imgs, noise: model(imgs, noise), symbolic=symbolic)
    for images, of_images in ((imgs, given), (imgs, given), (imgs[:1], given[:1])):  # recorded, compiled, other batch
        assert_near(compiled(images, of_images), model(images, of_images))
    for pooling in POOLINGS:
        encode = mge.jit.trace(lambda imgs, pooling=pooling: model.encode(imgs, pooling), symbolic=symbolic)
        for _ in range(2):
            assert_near(encode(imgs), model.encode(imgs, pooling))
    before = compiled(imgs, given)[1].numpy()
    model.norm.bias[...] = model.norm.bias + 1
    assert_near(compiled(imgs, given), model(imgs, given))  # it reads the weights, it holds no copy
    assert error(before, model(imgs, given)[1].numpy().astype(np.float64)) > 1e5
    classifier, imgs, _ = called("megengine", VIT)
    logits = mge.jit.trace(lambda imgs: classifier(imgs), symbolic=symbolic)
    for _ in range(2):
        assert_near(logits(imgs), classifier(imgs))


def test_megengine_trace_draws_other_masks() -> None:
    mge = needs("megengine")
    model, imgs, _ = called("megengine")

    def masks() -> list[Array]:
        mge.random.seed(3)
        compiled = mge.jit.trace(lambda imgs: model(imgs)[2], symbolic=True)
        return [compiled(imgs).numpy() for _ in range(4)]

    first, again = masks(), masks()
    assert all(map(np.array_equal, first, again))  # the seed of when it was made counts, not one of later
    # MegEngine's own: the first compiled call draws what the call that recorded it drew.
    assert [np.array_equal(a, b) for a, b in pairwise(first)] == [True, False, False]
    uniform = mge.jit.trace(lambda imgs: mge.random.uniform(size=(4,)), symbolic=True)
    own = [uniform(imgs).numpy() for _ in range(4)]
    assert [np.array_equal(a, b) for a, b in pairwise(own)] == [True, False, False]


def test_megengine_dump(tmp_path: Path) -> None:
    """Exported models take their inputs on the device "xpux"; a model is brought there by saving and loading it."""
    mge = needs("megengine")
    from megengine.utils.comp_graph_tools import GraphInference

    original, imgs, given = called("megengine")
    mge.save(original, str(tmp_path / "model.pkl"))
    model = mge.load(str(tmp_path / "model.pkl"), map_location="xpux")
    there = [mge.tensor(t.numpy(), device="xpux") for t in (imgs, given)]
    for call, inputs in ((lambda imgs, noise: model(imgs, noise), there), (lambda imgs: model.encode(imgs), there[:1])):
        compiled = mge.jit.trace(call, symbolic=True, capture_as_const=True)
        expected = arrays(compiled(*inputs))
        names = ["imgs", "noise"][: len(inputs)]
        compiled.dump(str(tmp_path / "model.mge"), arg_names=names)
        found = GraphInference(str(tmp_path / "model.mge")).run(inp_dict={n: t.numpy() for n, t in zip(names, inputs)})
        # A number comes back as [1].
        assert_near([a.reshape(e.shape) for a, e in zip(found.values(), expected)], expected)


# MindSpore


@pytest.fixture
def graph_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    ms = needs("mindspore")
    monkeypatch.chdir(tmp_path)  # where a compilation that fails leaves its graph
    ms.set_context(mode=ms.GRAPH_MODE)
    yield ms
    ms.set_context(mode=ms.PYNATIVE_MODE)


def of_mindspore() -> Callable[[Any, Any], None]:
    """How its compiled outputs are held against eager ones: bit for bit, but with oneDNN's AVX2, whose kernels differ."""
    kernels = load_backend("mindspore").environment("cpu")["kernels"]["onednn"]
    return assert_near if kernels.startswith("avx2") else assert_same


def test_mindspore_jit() -> None:
    ms = needs("mindspore")
    same = of_mindspore()
    model, imgs, given = called("mindspore")

    @ms.jit
    def compiled(imgs: Any, noise: Any) -> Any:
        return model(imgs, noise)

    same(compiled(imgs, given), model(imgs, given))
    same(compiled(imgs[:1], given[:1]), model(imgs[:1], given[:1]))

    @ms.jit
    def encode(imgs: Any) -> Any:
        return model.encode(imgs), model.encode(imgs, "gap"), model.encode(imgs, None)

    for found, pooling in zip(encode(imgs), ("cls", "gap", None)):
        same(found, model.encode(imgs, pooling))

    @ms.jit
    def drawn(imgs: Any) -> Any:
        return model(imgs)[2]

    masks = [drawn(imgs).asnumpy() for _ in range(2)]
    assert not np.array_equal(*masks)
    assert [mask.sum() for mask in masks] == [24, 24]


def test_mindspore_graph_mode(graph_mode: Any) -> None:
    ms = graph_mode
    same = of_mindspore()
    ms.set_context(mode=ms.PYNATIVE_MODE)
    model, imgs, given = called("mindspore")
    classifier = called("mindspore", VIT)[0]
    eager = [model(imgs, given), model.encode(imgs, "gap"), classifier(imgs)]
    ms.set_context(mode=ms.GRAPH_MODE)
    compiled = called("mindspore")[0]
    same(compiled(imgs, noise=given, mask_ratio=0.75), eager[0])
    same(compiled.encode(imgs, "gap"), eager[1])
    same(called("mindspore", VIT)[0](imgs), eager[2])
    with pytest.raises(InputError, match="mask_ratio=0.5"):  # what it was called with is looked at while compiling
        compiled(imgs, 0.5)
    with pytest.raises(InputError, match=r"noise is \[1, 16\]"):
        compiled(imgs, given[:1])


def test_mindspore_graph_for_any_batch(graph_mode: Any) -> None:
    ms = graph_mode
    model, imgs, given = called("mindspore")
    model.set_inputs(
        ms.Tensor(shape=[None, 3, 32, 32], dtype=ms.float32), ms.Tensor(shape=[None, 16], dtype=ms.float32)
    )
    static = called("mindspore")[0]
    assert_same(model(imgs, given), static(imgs, given))
    assert_same(model(imgs[:1], given[:1]), static(imgs[:1], given[:1]))


# OneFlow


def graph(call: Any, model: Any) -> Any:
    class Graph(needs("oneflow").nn.Graph):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def build(self, *inputs: Any) -> Any:
            return call(self.model, *inputs)

    return Graph()


def test_oneflow_graph() -> None:
    model, imgs, given = called("oneflow")
    compiled = graph(lambda model, imgs, noise: model(imgs, noise), model)
    for _ in range(2):
        assert_same(compiled(imgs, given), model(imgs, given))
    for pooling in POOLINGS:
        compiled_encode = graph(lambda model, imgs, pooling=pooling: model.encode(imgs, pooling), model)
        assert_same(compiled_encode(imgs), model.encode(imgs, pooling))
    with pytest.raises(RuntimeError, match="static inputs"):  # OneFlow's own: a graph is for one batch size
        compiled(imgs[:1], given[:1])
    classifier = called("oneflow", VIT)[0]
    assert_same(graph(lambda model, imgs: model(imgs), classifier)(imgs), classifier(imgs))


def test_oneflow_graph_draws_other_masks() -> None:
    flow = needs("oneflow")
    model, imgs, _ = called("oneflow")

    def masks() -> list[Array]:
        flow.manual_seed(3)
        compiled = graph(lambda model, imgs: model(imgs)[2], model)
        return [compiled(imgs).numpy() for _ in range(3)]

    first, again = masks(), masks()
    assert all(map(np.array_equal, first, again))  # the seed of when it was made counts
    assert not np.array_equal(first[0], first[1])
    assert first[0].sum() == first[1].sum() == 24
