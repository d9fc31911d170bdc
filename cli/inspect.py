"""`polymae inspect FILE`: the contents of a checkpoint."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

from .diff import print_some

if TYPE_CHECKING:
    from ..backends.config import Config
    from ..convert.checkpoint import Checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polymae inspect`."""
    parser.add_argument("file", help="a .pth, .safetensors, .npz, .pkl or .ckpt file, or a OneFlow or Hugging Face folder, "
                        "or what is published: a name of `polymae weights list`, a URL, hf://owner/name")  # fmt: skip
    parser.add_argument("--tensors", action="store_true", help="list every tensor")
    parser.add_argument("--from", "--dialect", dest="dialect", metavar="DIALECT", help="the spelling of the file")
    parser.add_argument(
        "--prefix", metavar="NAME", help="what the names of the model begin with, where the file holds several"
    )
    parser.add_argument("-m", "--model", help="which model it is, where the file does not tell (as convert_weights)")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run(args: argparse.Namespace) -> int:
    """Print the contents of the file and return 0."""
    from ..convert.checkpoint import open_checkpoint
    from ..convert.formats import FORMATS
    from ..convert.hashing import hash_tensors
    from ..convert.problems import oddities
    from ..hub.resolve import local

    checkpoint = open_checkpoint(local(args.file), args.dialect, args.prefix)
    problems = [*oddities(checkpoint.identified), *checkpoint.identified.problems.values()]
    misfit: list[str] = []
    if args.model:
        config = checkpoint.resolve(args.model).config
        misfit = _misfit(checkpoint, config)
        if not misfit:
            checkpoint = replace(checkpoint, taken_for=(args.model, config))
    tensors = checkpoint.tensors
    # Where the place of a value depends on the model, or a tensor is derived, the hashed values are not the file's.
    whole = checkpoint.placed
    hashed = hash_tensors(tensors if whole else checkpoint.stored)
    problems = list(dict.fromkeys([*problems, *misfit, *hashed.not_finite]))
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
        "hash": hashed.content if whole else None,
        "problems": problems,
        "provenance": checkpoint.provenance.facts() if checkpoint.provenance else None,
    }
    if args.json:
        if args.tensors:
            facts["tensor_list"] = [{"name": n, "shape": t.shape, "dtype": t.dtype} for n, t in tensors.items()]
        print(json.dumps(facts, indent=2))
        return 0
    provenance, _ = facts.pop("provenance"), facts.pop("problems")
    facts["format"] = FORMATS[checkpoint.format].NAME
    facts["model"] = checkpoint.model or "no named model has these shapes"
    facts["model"] += f"; not {args.model}" if misfit else ""
    facts["hash"] = (
        hashed.content if whole else "depends on the model, which the file does not tell: say with -m what it is"
    )
    facts["values"] = f"{facts['values']:,}"
    facts["dtypes"] = ", ".join(f"{dtype} ({count})" for dtype, count in facts["dtypes"].items())
    facts["extras"] = ", ".join(checkpoint.extras) or "none"
    for name, value in facts.items():
        print(f"{name:<10}{value}")
    print(f"problems  {len(problems) or 'none'}")
    print_some(problems)
    if whole and checkpoint.provenance and checkpoint.provenance.hash != hashed.content:
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


def _misfit(checkpoint: Checkpoint, config: Config) -> list[str]:
    """A sentence for each difference between a file and its alleged model."""
    from ..backends.config import MAEConfig
    from ..convert.tensors import CheckpointProblem

    try:
        checkpoint.select(config, checkpoint.contents == "encoder" and isinstance(config, MAEConfig))
    except CheckpointProblem as problem:
        return list(problem.problems) or [str(problem)]
    return []
