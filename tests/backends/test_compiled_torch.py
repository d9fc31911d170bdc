"""PyTorch's ways to compile a model: which outputs are bit for bit those of the eager model, and which are not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from in_use import SMALL, VIT, assert_same, called, needs
from untested import skipped_where

from polymae.compare.limits.metrics import error


@pytest.fixture
def compile_afresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    torch = needs("torch")
    # What inductor keeps it finds again where ATEN_CPU_CAPABILITY is another, and then g++ does not know its vectors.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.compiler.reset()
    yield torch.compile
    torch.compiler.reset()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_torch_compile_takes_the_whole_model(backend: str, compile_afresh: Any) -> None:
    torch = needs("torch")
    model, imgs, given = called("torch")
    compiled = compile_afresh(model, fullgraph=True, backend=backend)
    encode = compile_afresh(model.encode, fullgraph=True, backend=backend)
    classifier = called("torch", VIT)[0]
    with torch.no_grad():
        assert_same(compiled(imgs, given), model(imgs, given))
        assert_same(compiled(imgs[:1], given[:1]), model(imgs[:1], given[:1]))
        assert not torch.equal(compiled(imgs)[2], compiled(imgs)[2])  # drawn anew in each call
        for pooling in ("cls", "gap"):
            assert_same(encode(imgs, pooling), model.encode(imgs, pooling))
        assert_same(compile_afresh(classifier, fullgraph=True, backend=backend)(imgs), classifier(imgs))


def test_torch_compile_gives_the_same_gradients(compile_afresh: Any) -> None:
    model, imgs, given = called("torch")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    torch = needs("torch")
    expected = torch.autograd.grad(model(imgs, given)[0], trained)
    compiled = compile_afresh(model, fullgraph=True, backend="aot_eager")
    for mine, theirs in zip(torch.autograd.grad(compiled(imgs, given)[0], trained), expected):
        assert torch.equal(mine, theirs)


@skipped_where(not any(map(shutil.which, ("g++", "clang++"))), "inductor needs a C++ compiler", "apt-get install g++")
def test_torch_inductor_is_within_roundoff(compile_afresh: Any) -> None:
    model, imgs, given = called("torch")
    torch = needs("torch")
    with torch.no_grad():
        loss, pred, mask = compile_afresh(model, fullgraph=True)(imgs, given)
        expected = model(imgs, given)
    assert torch.equal(mask, expected[2])
    assert error(pred.numpy(), expected[1].double().numpy()) < 16  # its kernels add in another order
    assert error(loss.numpy(), expected[0].double().numpy()) < 16


@pytest.mark.parametrize("strict", [True, False])
def test_torch_export(strict: bool) -> None:
    torch = needs("torch")
    model, imgs, given = called("torch")
    batch = {0: torch.export.Dim("N", max=1024)}
    shapes = {"imgs": batch, "noise": batch}
    program = torch.export.export(model, (imgs, given), strict=strict, dynamic_shapes=shapes).module()
    _, more, of_more = called("torch", batch=5)
    assert_same(program(more, of_more), model(more, of_more))

    class Encoder(torch.nn.Module):
        """What is exported is called forward."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, imgs: Any) -> Any:
            return self.model.encode(imgs, "gap")

    features = torch.export.export(Encoder(), (imgs,), strict=strict, dynamic_shapes={"imgs": batch}).module()
    assert_same(features(more), model.encode(more, "gap"))


@pytest.mark.filterwarnings("ignore")  # that torch.jit is deprecated, and that sizes become constants
@pytest.mark.parametrize("config", [SMALL, VIT], ids=["autoencoder", "classifier"])
def test_torch_jit_trace(config: Any, tmp_path: Path) -> None:
    torch = needs("torch")
    model, *inputs = called("torch", config)
    count = 2 if config is SMALL else 1
    torch.jit.trace(model, tuple(inputs[:count])).save(tmp_path / "traced.pt")
    traced = torch.jit.load(tmp_path / "traced.pt")
    _, *more = called("torch", config, batch=5)
    assert_same(traced(*more[:count]), model(*more[:count]))
