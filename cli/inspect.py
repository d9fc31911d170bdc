"""`polymae inspect FILE`: what a checkpoint holds."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from math import prod
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polymae inspect`."""
    parser.add_argument("file", help="a .pth, .safetensors, .pkl or .ckpt file, or a OneFlow folder")
    parser.add_argument("--tensors", action="store_true", help="list every tensor")
    parser.add_argument("--dialect", metavar="NAME", help="the spelling of the file, where its names do not tell")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run(args: argparse.Namespace) -> int:
    """Print what the file holds and return 0."""
    from ..convert.checkpoint import open_checkpoint
    from ..convert.formats import FORMATS

    checkpoint = open_checkpoint(args.file, args.dialect)
    tensors = checkpoint.tensors
    facts: dict[str, Any] = {
        "file": str(checkpoint.path),
        "format": checkpoint.format,
        "dialect": checkpoint.dialect,
        "contents": checkpoint.contents,
        "model": checkpoint.model,
        "tensors": len(tensors),
        "values": sum(prod(tensor.shape) for tensor in tensors.values()),
        "dtypes": dict(Counter(tensor.dtype for tensor in tensors.values())),
        "extras": list(checkpoint.extras),
        "sha256": checkpoint.hash,
    }
    if args.json:
        if args.tensors:
            facts["tensor_list"] = [{"name": n, "shape": t.shape, "dtype": t.dtype} for n, t in tensors.items()]
        print(json.dumps(facts, indent=2))
        return 0
    facts["format"] = FORMATS[checkpoint.format].NAME
    facts["model"] = checkpoint.model or "no named model has these shapes"
    facts["values"] = f"{facts['values']:,}"
    facts["dtypes"] = ", ".join(f"{dtype} ({count})" for dtype, count in facts["dtypes"].items())
    facts["extras"] = ", ".join(checkpoint.extras) or "none"
    for name, value in facts.items():
        print(f"{name:<10}{value}")
    if args.tensors:
        width = max(map(len, tensors))
        for name, tensor in tensors.items():
            print(f"{name:<{width}}  {tensor.dtype:<9} {'x'.join(map(str, tensor.shape))}")
    return 0
