"""Devices, precision and gradients in MindSpore. Every backend's runtime.py has these same functions."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import ParameterTuple, Tensor
from numpy.typing import NDArray

from ..config import Config, MAEConfig
from ..gradient_taps import gradient_taps
from ..naming import to_spec
from ..optimization import Settings
from ..runtime import Recorded, RuntimeProblem, WatchedTaps, forward, objective, require_dtype
from .model import MAE, ViT
from .optimizer import AdamW, trained
from .weights import Weights, load_file, load_weights, weights

__all__ = [
    "build",
    "devices",
    "environment",
    "from_numpy",
    "load_file",
    "load_weights",
    "optimizer",
    "run",
    "setup",
    "to_numpy",
    "train_step",
    "weights",
]

DTYPES = {"float32": ms.float32, "float64": ms.float64}
TARGETS = {"cpu": "CPU", "cuda": "GPU", "ascend": "Ascend"}  # our name of a device, and MindSpore's

# dnnl_cpu_isa_t, by its values in oneDNN's dnnl_types.h.
ONEDNN_ISA = {
    0x1: "sse41", 0x3: "avx", 0x7: "avx2", 0xF: "avx2_vnni", 0x1F: "avx2_vnni_2", 0x27: "avx512_core",
    0x67: "avx512_core_vnni", 0xE7: "avx512_core_bf16", 0x1EF: "avx512_core_fp16", 0xFEF: "avx512_core_amx",
    0x1FEF: "avx512_core_amx_fp16",
}  # fmt: skip
_tf32 = False
_threads: int | None = None  # what was asked for: MindSpore takes it once in a process and cannot be asked


def devices() -> list[str]:
    """Devices this process can use, the first being the default."""
    context = ms.device_context
    available = {"cuda": context.gpu.is_available, "ascend": context.ascend.is_available}
    return ["cpu"] + [device for device, there in available.items() if there()]


def setup(device: str = "cpu", threads: int | None = None, seed: int = 0, allow_tf32: bool = False) -> None:
    """Prepare the process for exact work: TF32 (Ascend: HF32) off unless allowed, deterministic kernels, each error
    where it happens, a seed.

    Raises RuntimeProblem for a device that is not there, or for a second device or number of threads.
    """
    _select(device)
    _exact(device, allow_tf32)
    if threads:
        _limit(threads)
    ms.set_seed(seed)
    ms.manual_seed(seed)


def _select(device: str) -> None:
    """Choose the process's one device, before its first operation."""
    if device != "cpu" and device not in devices():  # asking for others fills stderr
        raise RuntimeProblem(
            f"MindSpore {ms.__version__} sees no {device!r} here; it has {', '.join(devices())}. "
            "For cuda it needs the libraries of CUDA 11.1 or 11.6, for ascend those of CANN."
        )
    if ms.get_context("device_target") == TARGETS[device]:
        return
    try:
        ms.set_device(TARGETS[device])
    except RuntimeError as problem:
        raise RuntimeProblem(
            f"MindSpore has one device in a process; start another for {device!r}: {problem}"
        ) from None


@functools.cache  # MindSpore refuses to be told twice
def _exact(device: str, allow_tf32: bool) -> None:
    global _tf32
    ms.set_deterministic(True)
    ms.runtime.launch_blocking()  # otherwise an operation's error surfaces at a later one
    if device == "cuda":
        ms.device_context.gpu.op_precision.matmul_allow_tf32(allow_tf32)
        ms.device_context.gpu.op_precision.conv_allow_tf32(allow_tf32)
    elif device == "ascend":
        ms.device_context.ascend.op_precision.matmul_allow_hf32(allow_tf32)
        ms.device_context.ascend.op_precision.conv_allow_hf32(allow_tf32)
    _tf32 = allow_tf32


def _limit(threads: int) -> None:
    global _threads
    if _threads not in (None, threads):
        raise RuntimeProblem(f"MindSpore runs with {_threads} threads here; start another process for {threads}.")
    if _threads is None:
        ms.device_context.cpu.op_tuning.threads_num(threads)
        ms.runtime.dispatch_threads_num(threads)  # either one alone changes nothing
    _threads = threads


def environment(device: str) -> dict[str, Any]:
    """What numbers may depend on: version, device name, threads, TF32 (or HF32), whether every run gives the same bits."""
    return {
        "framework": "mindspore",
        "version": ms.__version__,
        "device": "cpu" if device == "cpu" else ms.hal.get_device_name(0, TARGETS[device]),
        "threads": _threads,
        "tf32": device != "cpu" and _tf32,
        "deterministic": ms.get_context("deterministic") == "ON",
        "kernels": {"onednn": _onednn()},
    }


def _onednn() -> str:
    """The instruction set that oneDNN, which computes its matrix products on a CPU, may use here; "" where it cannot be asked."""
    for library in Path(ms.__file__).parent.glob("lib/libdnnl.so*"):
        with contextlib.suppress(OSError, AttributeError):
            isa = int(ctypes.CDLL(str(library)).dnnl_get_effective_cpu_isa())
            return ONEDNN_ISA.get(isa, hex(isa))
    return ""


def build(config: Config, weights: Weights | None = None, device: str = "cpu", dtype: str = "float32") -> MAE | ViT:
    """A model on a device. weights: arrays by spec name; None gives initial ones."""
    require_dtype("mindspore", DTYPES, dtype)
    _select(device)
    model = MAE(config, weights) if isinstance(config, MAEConfig) else ViT(config, weights)
    for parameter in model.get_parameters():
        parameter.set_dtype(DTYPES[dtype])
    return model.set_train(False)


def from_numpy(array: NDArray[Any], like: Any) -> Tensor:
    """A tensor on the process's device; floating point gets the model's dtype."""
    floating = np.issubdtype(array.dtype, np.floating)
    return Tensor(np.array(array), like.cls_token.dtype) if floating else Tensor(np.array(array))


def to_numpy(tensor: Tensor) -> NDArray[Any]:
    """A copy in NumPy (asnumpy shares the tensor's memory)."""
    return np.array(tensor.asnumpy())


def run(
    model: MAE | ViT, inputs: Mapping[str, NDArray[Any]], mask_ratio: float = 0.75, gradients: bool = False
) -> Recorded:
    """Run a model on NumPy inputs and return its taps and, if asked, the loss's gradients by spec name.

    The frozen position tables get a gradient too: it costs nothing and shows more.
    """
    tensors = {name: from_numpy(array, model) for name, array in inputs.items()}
    if not gradients:
        out: dict[str, Tensor] = {}
        forward(model, tensors, mask_ratio, out)
        return Recorded({name: to_numpy(out.pop(name)) for name in list(out)}, {}, {})
    passed: dict[str, Tensor] = {}
    watched = [tap.name for tap in gradient_taps(model.config)]
    out = WatchedTaps(watched, lambda name, tensor: tensor.register_hook(functools.partial(passed.__setitem__, name)))
    names, parameters = zip(*model.parameters_and_names())
    frozen = [parameter for parameter in parameters if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad = True
    try:
        differentiated = ms.value_and_grad(
            lambda: forward(model, tensors, mask_ratio, out), None, ParameterTuple(parameters)
        )
        _, found = differentiated()
    finally:
        for parameter in frozen:
            parameter.requires_grad = False
    native = {name: to_numpy(gradient) for name, gradient in zip(names, found)}
    dy = {name: to_numpy(passed.pop(name)) for name in watched}
    taps = {name: to_numpy(out.pop(name)) for name in list(out)}  # a tensor goes when its copy is made
    return Recorded(taps, to_spec("mindspore", model.config, native), dy)


def optimizer(model: MAE | ViT, settings: Settings) -> AdamW:
    """An AdamW for the model's parameters."""
    return AdamW(model, settings)


def train_step(
    model: MAE | ViT, optimizer: AdamW, inputs: Mapping[str, NDArray[Any]], mask_ratio: float, lr: float
) -> float:
    """One step of training from NumPy inputs, at this learning rate. Returns the loss before it."""
    tensors = {name: from_numpy(array, model) for name, array in inputs.items()}
    parameters = trained(model)
    differentiated = ms.value_and_grad(
        lambda: objective(model, tensors, mask_ratio), None, ParameterTuple(parameters.values())
    )
    loss, found = differentiated()
    optimizer.step(dict(zip(parameters, found)), lr)
    return float(to_numpy(loss))
