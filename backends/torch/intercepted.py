"""PyTorch's operations intercepted below autograd: products summed in one chain, and noise behind inaccurate kernels.

For a reference of anybody's own in PyTorch: its computation is not known, but every operation of its forward and backward
pass comes by here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from ..numpy.sums import chained_matmul, matmul

aten = torch.ops.aten
U = 2.0**-24


class Chains(TorchDispatchMode):
    """Within `summed_in_chains`, every float32 product adds its terms one after the other. products: how many there were.

    Matrix products, convolutions of one and two dimensions (transposed, dilated, in groups) and both gradients of each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.products = 0

    @classmethod
    @contextmanager
    def entered(cls) -> Iterator[Chains]:
        """In force, and with the operations that hide products taken apart: fused attention, oneDNN's recurrent layers."""
        with ExitStack() as stack:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # oneDNN's flags speak of Intel's GPUs
                stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
            yield stack.enter_context(cls())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute a product ourselves, and leave everything else to PyTorch."""
        kwargs = kwargs or {}
        product = _PRODUCTS.get(func)
        tensors = [argument for argument in args if isinstance(argument, Tensor)]
        if product is None or any(tensor.dtype != torch.float32 for tensor in tensors):
            return func(*args, **kwargs)
        result = product(*args, **kwargs)
        if result is None:
            return func(*args, **kwargs)
        self.products += 1
        return result


def _product(a: Tensor, b: Tensor) -> Tensor:
    return _from(matmul(_array(a), _array(b)), a)


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    return tensor.detach().cpu().resolve_conj().resolve_neg().numpy()


def _from(array: np.ndarray[Any, Any], like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(like.device)


def _mm(a: Tensor, b: Tensor) -> Tensor:
    return _product(a, b)


def _addmm(start: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    product = _product(a, b)
    return (start if beta == 1 else beta * start) + (product if alpha == 1 else alpha * product)


def _mv(a: Tensor, b: Tensor) -> Tensor:
    return _product(a, b[:, None])[:, 0]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return _product(a[None], b[:, None])[0, 0]


class _Convolution:
    """A convolution of one or two dimensions as products of the columns of its windows."""

    def __init__(
        self, weight: Tensor, stride: list[int], padding: list[int], dilation: list[int], groups: int, transposed: bool
    ):
        self.flat = len(stride) == 1  # of one dimension: a row of height 1
        self.weight = self.raised(weight)
        self.kernel = self.weight.shape[2:]
        height = {"dilation": 1, "padding": 0, "stride": 1}  # of a row
        settings = {"dilation": dilation, "padding": padding, "stride": stride}
        self.windows = {
            name: (height[name], *values) if self.flat else tuple(values) for name, values in settings.items()
        }
        self.groups, self.transposed = groups, transposed

    def raised(self, tensor: Tensor) -> Tensor:
        return tensor[:, :, None] if self.flat else tensor

    def lowered(self, tensor: Tensor) -> Tensor:
        return tensor[:, :, 0] if self.flat else tensor

    def matrices(self) -> Tensor:
        """The weight [G, out / G, terms]; of a transposed convolution [G, in / G, terms]."""
        return self.weight.reshape(self.groups, self.weight.shape[0] // self.groups, -1)

    def columns(self, x: Tensor) -> Tensor:
        """The windows of x, as [N, G, terms, windows]."""
        windows = F.unfold(x, self.kernel, **self.windows)
        return windows.reshape(len(x), self.groups, -1, windows.shape[-1])

    def folded(self, columns: Tensor, size: torch.Size) -> Tensor:
        """Every window added to where it was taken from, [N, C, *size]."""
        flat = columns.reshape(len(columns), -1, columns.shape[-1])
        return F.fold(flat, tuple(size), self.kernel, **self.windows)

    def gathered(self, x: Tensor, size: torch.Size) -> Tensor:
        """The sum over each window of x: a convolution, or the gradient for the input of a transposed one."""
        sums = chained(self.matrices(), self.columns(x))
        return sums.reshape(len(x), -1, *size)

    def scattered(self, x: Tensor, size: torch.Size) -> Tensor:
        """The gradient for the input of a convolution, or a transposed convolution."""
        rows = x.reshape(len(x), self.groups, -1, x.shape[2] * x.shape[3])
        return self.folded(chained(self.matrices().mT, rows), size)

    def of_weight(self, narrow: Tensor, wide: Tensor) -> Tensor:
        """The gradient for the weight. narrow: has a value for each window of wide."""
        rows = narrow.reshape(len(narrow), self.groups, -1, narrow.shape[2] * narrow.shape[3])
        # The images one after the other in one sum: [G, out / G, N windows] times [G, N windows, terms].
        left = rows.permute(1, 2, 0, 3).flatten(2)
        right = self.columns(wide).permute(1, 0, 3, 2).flatten(1, 2)
        return chained(left, right).reshape(self.weight.shape)


def chained(a: Tensor, b: Tensor) -> Tensor:
    """A product whose terms keep their order: neighbours in an image are alike, which costs most."""
    return _from(chained_matmul(_array(a), _array(b)), a)


def _convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int], dilation: list[int],
    transposed: bool, output_padding: list[int], groups: int,
) -> Tensor | None:  # fmt: skip
    if len(stride) > 2 or any(output_padding):
        return None
    how = _Convolution(weight, stride, padding, dilation, groups, transposed)
    x = how.raised(x)
    size = torch.Size(
        (n - 1) * s - 2 * p + d * (k - 1) + 1 if transposed else (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(
            x.shape[2:], how.kernel, *(how.windows[name] for name in ("stride", "padding", "dilation"))
        )
    )
    y = how.lowered((how.scattered if transposed else how.gathered)(x, size))
    return y if bias is None else y + bias.reshape(1, -1, *(1 for _ in stride))


def _convolution_backward(
    dy: Tensor, x: Tensor, weight: Tensor, bias_sizes: list[int] | None, stride: list[int], padding: list[int],
    dilation: list[int], transposed: bool, output_padding: list[int], groups: int, wanted: list[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None] | None:  # fmt: skip
    if len(stride) > 2 or any(output_padding):
        return None
    how = _Convolution(weight, stride, padding, dilation, groups, transposed)
    dy, x = how.raised(dy), how.raised(x)
    back = how.gathered if transposed else how.scattered
    dx = how.lowered(back(dy, x.shape[2:])) if wanted[0] else None
    pair = (x, dy) if transposed else (dy, x)
    dw = how.lowered(how.of_weight(*pair)) if wanted[1] else None
    db = None
    if wanted[2]:
        rows = dy.transpose(0, 1).flatten(1)  # a chain too: a product with ones
        db = chained(rows, torch.ones_like(rows[:1]).T)[:, 0]
    return dx, dw, db


_PRODUCTS: dict[Any, Callable[..., Any]] = {
    aten.mm.default: _mm,
    aten.bmm.default: _mm,
    aten.addmm.default: _addmm,
    aten.baddbmm.default: _addmm,
    aten.mv.default: _mv,
    aten.dot.default: _dot,
    aten.convolution.default: _convolution,
    aten.convolution_backward.default: _convolution_backward,
}


class Noise(TorchDispatchMode):
    """Relative noise behind every call of some operations, forward and backward.

    sizes: in u, by operation as operations.json names it. coherent: the same for all elements, as of a kernel whose errors
    have one sign. met: the operations that were called.
    """

    def __init__(self, sizes: Mapping[str, float], coherent: bool = False):
        super().__init__()
        self.sizes, self.coherent = sizes, coherent
        self.met: set[str] = set()
        self.rng = torch.Generator().manual_seed(0)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and spoil its output."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        known = [name for name in _operations(func, kwargs) if name in self.sizes]
        if known:
            name = max(known, key=lambda name: self.sizes[name])
            self.met.add(name)
            for tensor in result if isinstance(result, (tuple, list)) else (result,):
                if isinstance(tensor, Tensor) and tensor.is_floating_point():
                    self._spoil(tensor, self.sizes[name])
        return result

    def _spoil(self, tensor: Tensor, size: float) -> None:
        if self.coherent:
            tensor.mul_(1 + size * U)
        else:
            noise = torch.randn(tensor.shape, generator=self.rng, dtype=torch.float64).to(tensor)
            tensor.mul_(1 + size * U * noise)


def _operations(func: Any, kwargs: Mapping[str, Any]) -> Iterator[str]:
    """The names under which a call of PyTorch's is known (backends/operations.py)."""
    name = func.overloadpacket.__name__.removesuffix("_")  # exp_ is exp in place
    backward = name.endswith(("_backward", "_backward_data"))
    name = name.removesuffix("_data").removesuffix("_backward")
    names = ("tanh gelu",) if name == "gelu" and kwargs.get("approximate") == "tanh" else _OPERATIONS.get(name, ())
    yield from (f"{operation} backward" for operation in names) if backward else names


# By the name of the aten operation. Another framework may have one kernel for two operations of this table (cross entropy), and
# the other way round.
_OPERATIONS: dict[str, tuple[str, ...]] = {
    "_log_softmax": ("log softmax", "cross entropy"),
    "_softmax": ("softmax", "attention"),
    "_scaled_dot_product_flash_attention_for_cpu": ("attention", "softmax"),
    "nll_loss_forward": ("negative log likelihood",),
    "nll_loss": ("negative log likelihood",),
    "mse_loss": ("mean squared error",),
    "smooth_l1_loss": ("smooth l1 loss",),
    "native_layer_norm": ("layer norm",),
    "native_batch_norm": ("batch norm", "batch norm in training"),
    "_native_batch_norm_legit": ("batch norm", "batch norm in training"),
    "_native_batch_norm_legit_no_training": ("batch norm",),
    "native_group_norm": ("group norm",),
    "logsumexp": ("logsumexp", "cross entropy"),
    "exp": ("exp",),
    "exp2": ("exp",),
    "log": ("log",),
    "log2": ("log",),
    "log10": ("log",),
    "log1p": ("log1p",),
    "expm1": ("expm1",),
    "sqrt": ("square root",),
    "rsqrt": ("reciprocal square root",),
    "reciprocal": ("reciprocal",),
    "div": ("division",),
    "pow": ("power", "cube"),
    "erf": ("erf",),
    "sin": ("sin",),
    "cos": ("cos",),
    "tanh": ("tanh",),
    "sigmoid": ("sigmoid",),
    "log_sigmoid_forward": ("log sigmoid",),
    "log_sigmoid": ("log sigmoid",),
    "softplus": ("softplus",),
    "silu": ("silu",),
    "gelu": ("gelu",),
    "hardsigmoid": ("hard sigmoid",),
    "hardswish": ("hard swish",),
    "mish": ("mish",),
    "elu": ("elu",),
    "leaky_relu": ("leaky relu",),
    "mean": ("mean", "adaptive average pool"),
    "sum": ("sum",),
    "var": ("variance",),
    "var_mean": ("variance",),
    "std": ("standard deviation",),
    "linalg_vector_norm": ("norm", "normalize"),
    "norm": ("norm", "normalize"),
    "cumsum": ("cumulative sum",),
    "avg_pool2d": ("average pool",),
    "_adaptive_avg_pool2d": ("adaptive average pool",),
    "upsample_bilinear2d": ("bilinear interpolation", "bilinear interpolation of corners"),
    "upsample_bicubic2d": ("bicubic interpolation",),
}
