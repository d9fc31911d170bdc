"""How OneFlow is started: this package imports it here first, before any other module does."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

# The core whose kernels its OpenBLAS takes; "" where OneFlow was imported by somebody else, who did not ask.
openblas_core = ""
# Has OpenBLAS say its core when it is loaded: OneFlow's has no function that could be called for it.
VERBOSE = "OPENBLAS_VERBOSE"

# Written by OneFlow's import for itself; torch.distributed and child processes would take them for a real launch.
RENDEZVOUS = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK", "LOCAL_RANK")
# What its import says on any machine without InfiniBand or without a GPU.
NOISE = (b"libibverbs not available", b"cuda_device_descriptor_class.cpp")
CORE = b"Core: "  # OpenBLAS's words before the name
# What its library links to; the cudnn_ops and cublasLt libraries come before those that use them.
CUDA_LIBRARIES = (
    "libcublasLt.so.11", "libcublas.so.11", "libcudnn_ops_infer.so.8", "libcudnn_ops_train.so.8",
    "libcudnn_cnn_infer.so.8", "libcudnn_cnn_train.so.8",
)  # fmt: skip


def import_oneflow() -> None:
    """Import OneFlow quietly and without leaving rendezvous variables in the environment.

    Raises ImportError, naming the packages to install, where its CUDA libraries are missing.
    """
    # Loaded after MindSpore, OneFlow would find this protobuf module missing.
    importlib.import_module("google.protobuf.pyext._message")
    before = {name: os.environ.get(name) for name in (*RENDEZVOUS, VERBOSE)}
    os.environ[VERBOSE] = "2"
    try:
        with _without_noise(NOISE if before[VERBOSE] else (*NOISE, CORE)):
            try:
                importlib.import_module("oneflow")
            except ImportError as problem:
                if "libcu" not in str(problem):
                    raise
                _preload(problem)
                importlib.import_module("oneflow")
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _preload(problem: ImportError) -> None:
    """Load the CUDA libraries from wherever on sys.path pip put them; OneFlow itself looks only beside its own folder.

    Even the CPU needs them, and OneFlow's own package does not name them.
    """
    for library in CUDA_LIBRARIES:
        paths = [path for folder in sys.path for path in Path(folder).glob(f"nvidia/*/lib/{library}")]
        if not paths:
            raise ImportError(
                f"{problem}. OneFlow needs cuBLAS and cuDNN of CUDA 11 even on a CPU: "
                'pip install "nvidia-cublas-cu11==11.10.3.66" "nvidia-cudnn-cu11==8.5.0.96"'
            ) from problem
        ctypes.CDLL(str(paths[0]))


@contextlib.contextmanager
def _without_noise(noise: tuple[bytes, ...]) -> Iterator[None]:
    """Hold back the output of C++ code to stderr, then pass on all of it but the known noise; keep the name of the core."""
    global openblas_core
    try:
        original = os.dup(2)
    except OSError:  # this process has no stderr
        yield
        return
    with tempfile.TemporaryFile() as captured:
        if sys.stderr:  # None where it is closed
            sys.stderr.flush()
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(original, 2)
            os.close(original)
            captured.seek(0)
            lines = captured.readlines()
            openblas_core = next((line[len(CORE) :].decode().strip() for line in lines if line.startswith(CORE)), "")
            os.write(2, b"".join(line for line in lines if not any(known in line for known in noise)))
