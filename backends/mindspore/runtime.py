"""Devices, precision and gradients in MindSpore. Every backend's runtime.py has these same functions."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import ParameterTuple, Tensor
from numpy.typing import NDArray

from ..averaging import Averaging
from ..config import Config, MAEConfig
from ..optimization import Optimizer, Settings
from ..runtime import Loss, Runtime, RuntimeProblem, ShownTaps, Watched, require_dtype, unfrozen
from .model import MAE, ViT
from .optimizer import EMA, LARS, AdamW
from .training import Training
from .weights import Weights, load_file, load_weights, named_parameters, to_numpy

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


class Backend(Runtime):
    """MindSpore."""

    framework = "mindspore"
    DTYPES = DTYPES
    named_parameters = staticmethod(named_parameters)
    load_weights = staticmethod(load_weights)
    load_file = staticmethod(load_file)
    to_numpy = staticmethod(to_numpy)

    def devices(self) -> list[str]:
        return devices()

    def setup(self, device: str = "cpu", threads: int | None = None, seed: int = 0, allow_tf32: bool = False) -> None:
        """TF32 is HF32 on an Ascend; each error surfaces where it happens.

        Raises RuntimeProblem also for a second device or number of threads: MindSpore has one in a process.
        """
        _select(device)
        _exact(device, allow_tf32)
        if threads:
            _limit(threads)
        ms.set_seed(seed)
        ms.manual_seed(seed)

    def environment(self, device: str) -> dict[str, Any]:
        return {
            "framework": "mindspore",
            "version": ms.__version__,
            "device": "cpu" if device == "cpu" else ms.hal.get_device_name(0, TARGETS[device]),
            "threads": _threads,
            "tf32": device != "cpu" and _tf32,
            "deterministic": ms.get_context("deterministic") == "ON",
            "kernels": {"onednn": _onednn()},
        }

    def build(
        self, config: Config, weights: Weights | None = None, device: str = "cpu", dtype: str = "float32"
    ) -> MAE | ViT:
        require_dtype("mindspore", DTYPES, dtype)
        _select(device)
        model = MAE(config, weights) if isinstance(config, MAEConfig) else ViT(config, weights)
        for parameter in model.get_parameters():
            parameter.set_dtype(DTYPES[dtype])
        return model.set_train(False)

    def from_numpy(self, array: NDArray[Any], like: Any) -> Tensor:
        floating = np.issubdtype(array.dtype, np.floating)
        return Tensor(np.array(array), like.cls_token.dtype) if floating else Tensor(np.array(array))

    def no_grad(self) -> AbstractContextManager[Any]:
        return nullcontext()  # a graph is kept inside value_and_grad alone

    def differentiate(
        self, loss: Loss, model: Any, inputs: Mapping[str, Any], parameters: Mapping[str, Any], watched: Watched
    ) -> tuple[Any, dict[str, Any]]:
        """MindSpore differentiates a function by parameters; other tensors pass their gradients to hooks."""
        out = ShownTaps(watched, lambda name, tensor: tensor.register_hook(partial(watched.dy.__setitem__, name)))
        with unfrozen(parameters.values()):
            differentiated = ms.value_and_grad(
                lambda: loss(model, inputs, out), None, ParameterTuple(parameters.values())
            )
            value, gradients = differentiated()
        return value, dict(zip(parameters, gradients))

    def optimizer(self, model: Any, settings: Settings) -> Optimizer:
        return LARS(self, model, settings) if settings.kind == "lars" else AdamW(self, model, settings)

    def average(self, model: Any, averaging: Averaging) -> EMA:
        return EMA(self, model, averaging)

    def training(self, model: Any, optimizer: Optimizer, **options: Any) -> Training:
        return Training(self, model, optimizer, **options)


def devices() -> list[str]:
    """The devices that this process can use, the default first."""
    context = ms.device_context
    available = {"cuda": context.gpu.is_available, "ascend": context.ascend.is_available}
    return ["cpu"] + [device for device, there in available.items() if there()]


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


@cache  # MindSpore refuses to be told twice
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


def _onednn() -> str:
    """The instruction set that oneDNN, which computes its matrix products on a CPU, may use here; "" where it cannot be asked."""
    for library in Path(ms.__file__).parent.glob("lib/libdnnl.so*"):
        with contextlib.suppress(OSError, AttributeError):
            isa = int(ctypes.CDLL(str(library)).dnnl_get_effective_cpu_isa())
            return ONEDNN_ISA.get(isa, hex(isa))
    return ""
