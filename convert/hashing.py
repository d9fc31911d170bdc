"""The content hash: one string for the same weights in every format, dialect and framework."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from blake3 import blake3

from .tensors import Array, Progress, Tensor, of_array, populate_pages, to_bytes

_CHUNK = 1 << 20  # bytes that stay in a core's cache while they are hashed and looked through
WORKERS = 2  # NumPy and BLAKE3 leave Python's lock


@dataclass(frozen=True)
class Hashed:
    """The hashes of tensors, as hexadecimal digits."""

    content: str  # of all of them
    tensors: Mapping[str, str]  # of each, by name
    not_finite: tuple[str, ...]  # a sentence for each tensor with NaN or infinite values


UNKNOWN = Hashed("0" * 64, {}, ())  # as long as a real one


def content_hash(weights: Mapping[str, Array]) -> str:
    """The content hash of arrays by spec name, whatever the order of the dict: 64 hexadecimal digits."""
    return hash_tensors({name: of_array(array) for name, array in weights.items()}).content


def hash_tensors(
    tensors: Mapping[str, Tensor], progress: Progress | None = None, finite: bool = True, workers: int = WORKERS
) -> Hashed:
    """Hash tensors by spec name, in the spec's layout, and look for values that are not finite, in one pass.

    finite: False leaves out the search. workers: threads.
    BLAKE3 of each tensor's JSON line [name, dtype, shape] and little-endian bytes in C order; the content hash is that of
    the lines "name hash", sorted by name. Raises CheckpointProblem for a damaged file.
    """

    def one(name: str) -> tuple[str, str]:
        hashed = _hash_one(name, tensors[name], finite)
        if progress:
            progress(tensors[name].nbytes)
        return hashed

    populate_pages()
    with ThreadPoolExecutor(workers) as pool:
        by_name = dict(zip(tensors, pool.map(one, tensors)))
    total = blake3()
    for name in sorted(by_name):
        total.update(f"{name} {by_name[name][0]}\n".encode())
    sentences = tuple(sentence for _, sentence in by_name.values() if sentence)
    return Hashed(total.hexdigest(), {name: digest for name, (digest, _) in by_name.items()}, sentences)


def _hash_one(name: str, tensor: Tensor, finite: bool) -> tuple[str, str]:
    digest = blake3(json.dumps([name, tensor.dtype, tensor.shape]).encode() + b"\n")
    suspect = False
    for part in tensor.parts or (tensor,):
        for block in _blocks(part.load()):
            digest.update(to_bytes(block))
            suspect = suspect or (finite and _suspect(block, tensor.dtype))
    return digest.hexdigest(), not_finite(name, tensor.dtype, tensor.load()) if suspect else ""


def _blocks(array: Array) -> Iterator[Array]:
    """An array, some rows at a time: an array in another layout is copied to be hashed, and never as a whole."""
    if array.ndim == 0 or not array.size:
        yield array
        return
    rows = max(1, _CHUNK * len(array) // array.nbytes)
    for start in range(0, len(array), rows):
        yield array[start : start + rows]


def _suspect(chunk: Array, dtype: str) -> bool:
    """Whether there may be values that are not finite. A float32 sum is finite only if all its terms are."""
    if dtype in ("float32", "float64"):
        with np.errstate(all="ignore"):
            return not np.isfinite(chunk.sum())
    return bool(not_finite("", dtype, chunk))


def not_finite(name: str, dtype: str, array: Array) -> str:
    """A sentence with the counts of NaN and infinite values; "" if an array has none."""
    if dtype == "bfloat16":  # bits: an exponent of ones is infinite where the fraction is zero, else NaN
        special = (array & 0x7F80) == 0x7F80
        infinities = int((special & ((array & 0x7F) == 0)).sum())
        nans = int(special.sum()) - infinities
    elif array.dtype.kind == "f":
        nans, infinities = int(np.isnan(array).sum()), int(np.isinf(array).sum())
    else:
        return ""
    if not nans and not infinities:
        return ""
    return f"not finite: {name} has {nans} NaN and {infinities} Inf among {array.size:,} values"
