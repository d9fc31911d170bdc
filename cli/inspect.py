"""`polymae inspect FILE`: what a checkpoint holds."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import replace
from math import prod
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polymae inspect`."""
    parser.add_argument("file", help="a .pth, .safetensors, .pkl or .ckpt file, or a OneFlow folder")
    parser.add_argument("--tensors", action="store_true", help="list every tensor")
    parser.add_argument("--from", "--dialect", dest="dialect", metavar="DIALECT", help="the spelling of the file")
    parser.add_argument("-m", "--model", help="which model it is, where the file does not tell (as convert_weights)")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run(args: argparse.Namespace) -> int:
    """Print what the file holds and return 0."""
    from ..convert.checkpoint import open_checkpoint
    from ..convert.choice import model_of
    from ..convert.formats import FORMATS

    checkpoint = open_checkpoint(args.file, args.dialect)
    if args.model:
        model, config = model_of(checkpoint, args.model)
        checkpoint = replace(checkpoint, model=model, config=config)
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
        "hash": checkpoint.hash,
        "problems": list(checkpoint.identified.problems.values()),
        "provenance": checkpoint.provenance.facts() if checkpoint.provenance else None,
    }
    if args.json:
        if args.tensors:
            facts["tensor_list"] = [{"name": n, "shape": t.shape, "dtype": t.dtype} for n, t in tensors.items()]
        print(json.dumps(facts, indent=2))
        return 0
    provenance = facts.pop("provenance")
    facts["format"] = FORMATS[checkpoint.format].NAME
    facts["model"] = checkpoint.model or "no named model has these shapes"
    facts["values"] = f"{facts['values']:,}"
    facts["dtypes"] = ", ".join(f"{dtype} ({count})" for dtype, count in facts["dtypes"].items())
    facts["extras"] = ", ".join(checkpoint.extras) or "none"
    facts["problems"] = "; ".join(facts["problems"]) or "none"
    for name, value in facts.items():
        print(f"{name:<10}{value}")
    if checkpoint.provenance and checkpoint.provenance.hash != checkpoint.hash:
        print(
            f"note      the provenance is of other weights ({checkpoint.provenance.hash}): one of the two was replaced"
        )
    elif provenance:
        source = provenance["source"]
        print(
            f"from      {source.get('name')} ({source.get('dialect')}, {source.get('format')}), hash {source.get('hash')}"
        )
        for sentence in (*provenance["transformations"], *provenance["notices"]):
            print(f"          {sentence}")
    if args.tensors:
        width = max(map(len, tensors))
        for name, tensor in tensors.items():
            print(f"{name:<{width}}  {tensor.dtype:<9} {'x'.join(map(str, tensor.shape))}")
    return 0
