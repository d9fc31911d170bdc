"""The options of a comparison and of a run of one framework: frozen, and JSON in and out.

A field made by `option` is an option of `polymae compare`, `polymae record` or of both: its flag is made from its line
(cli/options.py), and a child gets it as JSON (record/child.py). Only Python's own modules are imported: --help is instant.
"""

# ruff: noqa: RUF009  (`option` gives a field, not a value)
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, MISSING, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..backends import DEVICES, FRAMEWORKS
from ..files.arguments import above_zero, read_names, share, whole
from ..files.errors import Problem

LEVELS = ("weights", "inputs", "forward", "loss", "gradients", "optimizer", "curve")
# The levels of one run of the model; the gradients, the optimizer and the curve are more work, and requested by name.
OF_ONE_RUN = ("weights", "inputs", "forward", "loss")
LARGEST_SEED = 2**32 - 1

Made = TypeVar("Made", bound="Options")


def option(
    default: Any = MISSING,
    help: str = "",
    *,
    flags: Sequence[str] = (),
    read: Callable[[Any], Any] | None = None,
    judging: bool = False,
    **words: Any,
) -> Any:
    """A field that is an option of a command. default: a value, or a function that makes one.

    help, words: for argparse's add_argument. flags: those that it has instead of --field-name. read: what makes the field of
    what argparse gives. judging: the option means something for traces that are recorded already, too.
    """
    metadata = {"help": help, "flags": tuple(flags), "read": read, "judging": judging, "words": words}
    made = {"default_factory" if callable(default) else "default": default}
    return field(**made, metadata=metadata)


def _interpreters(texts: Sequence[str]) -> dict[str, str]:
    """FRAMEWORK=PATH, several times, as a dictionary. Raises Problem for anything else."""
    pythons = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or name not in FRAMEWORKS:
            raise Problem(f"--python {text!r} is not FRAMEWORK=PATH with a framework of {', '.join(FRAMEWORKS)}.")
        pythons[name] = str(Path(path).absolute()) if "/" in path else path
    return pythons


def _levels(default: tuple[str, ...], text: str) -> Any:
    about = f"comma-separated, of {', '.join(LEVELS)}, or all (default: {text})"
    return option(
        default, about, flags=("--level",), read=partial(read_names, known=LEVELS, kind="level"), judging=True
    )


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options that every run of a comparison shares with it."""

    weights: Path | None = option(
        None,
        "checkpoint of any framework, or a published one by name (default: initial weights from --seed)",
        judging=True,
    )
    model: str | None = option(
        None, "preset, JSON file or img_size=...,... (default: from the file's shapes)", flags=("-m", "--model")
    )
    images: tuple[Path, ...] = option(
        (),
        "photographs, from the JPEG on (default: those of the demo)",
        type=Path,
        nargs="+",
        metavar="IMAGE",
        read=tuple,
    )
    levels: tuple[str, ...] = _levels(LEVELS, "all")
    device: str = option("cpu", "where (default: cpu)", choices=DEVICES)
    mask_ratio: float = option(0.75, "share of patches removed (default 0.75)", type=float)
    norm_pix_loss: bool = option(False, "differentiate the loss of normalised patches")
    allow_tf32: bool = option(
        False, "let a GPU round what it multiplies to TF32 (an Ascend: HF32), to see what it costs"
    )
    threads: int = option(1, "of each framework (default 1: one order of summation)", type=whole(1))
    seed: int = option(0, "of weights, images and noise (default 0)", type=whole(0, LARGEST_SEED))

    def shared(self) -> dict[str, Any]:
        """The options that every run shares."""
        return {one.name: getattr(self, one.name) for one in fields(Options)}

    def as_dict(self) -> dict[str, Any]:
        """For JSON: paths are text, relative ones made absolute."""
        return {one.name: _plain(getattr(self, one.name)) for one in fields(self)}

    @classmethod
    def from_dict(cls: type[Made], values: Mapping[str, Any]) -> Made:
        """From JSON; absent fields have their defaults."""
        return cls(**{one.name: _typed(one.type, values[one.name]) for one in fields(cls) if one.name in values})


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _typed(annotation: Any, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_typed(annotation, item) for item in value)
    return Path(value) if isinstance(value, str) and "Path" in str(annotation) else value


@dataclass(frozen=True)
class Comparison(Options):
    """The options of a comparison."""

    frameworks: tuple[str, ...] = option(
        FRAMEWORKS,
        f"comma-separated, of {', '.join(FRAMEWORKS)} (default: all)",
        read=partial(read_names, known=FRAMEWORKS, kind="framework"),
    )
    inputs: Path | None = option(None, ".npz with imgs and noise (or labels), in place of --images", type=Path)
    reference: str | None = option(
        "torch",
        "beside which to show allclose",
        choices=(*FRAMEWORKS, "none"),
        read=lambda name: None if name == "none" else name,
        judging=True,
    )
    rtol: float | None = option(
        None, "for the reference (default 1e-4); given, a failure is a fault", type=float, judging=True
    )
    atol: float | None = option(
        None, "for the reference (default 1e-5); given, a failure is a fault", type=float, judging=True
    )
    drop_path: float = option(
        0.0, "classifier: rate of the last block's dropped branches, rising from 0 in the first", type=share
    )
    soft_targets: bool = option(
        False, "classifier: targets as mixup and label smoothing leave them, in place of labels"
    )
    batch: int = option(2, "random images, where none are given (default 2)", type=whole(1))
    time_limit: float | None = option(  # seconds for each process; None: as long as it gets on
        None,
        "for each framework's process (default: it is ended where it does nothing for 5 minutes, or computes for an hour)",
        type=above_zero,
        metavar="SECONDS",
    )
    keep: Path | None = option(None, "folder in which converted files and traces stay", type=Path)
    pythons: Mapping[str, str] = option(
        dict,
        "record in another interpreter",
        flags=("--python",),
        action="append",
        metavar="FRAMEWORK=PATH",
        read=_interpreters,
    )
    scratch: Path | None = None  # where the gigabytes in between go; None: the system's temporary folder


@dataclass(frozen=True)
class Run(Options):
    """The options of a run of one framework."""

    framework: str = option(help="which of them", choices=FRAMEWORKS)
    out: Path = option(help="the trace to write, .npz", type=Path)
    inputs: Path = option(
        help=".npz with imgs [N,C,H,W] and noise [N,L], or labels [N] or targets [N,classes]", type=Path
    )
    _: KW_ONLY
    levels: tuple[str, ...] = _levels(OF_ONE_RUN, ",".join(OF_ONE_RUN))
    dtype: str = option("float32", "of its numbers (default: float32)", choices=("float32", "float64", "bfloat16"))
    taps: tuple[str, ...] | None = option(
        None,
        "write only these tensors: 'blocks.*' 'grad/blocks.0.*' loss (of every level at least one)",
        nargs="+",
        metavar="PATTERN",
        read=lambda patterns: patterns and tuple(patterns),
    )
    twin: int | None = option(
        None, "NumPy: sum matrix products in a random order", type=whole(0, LARGEST_SEED), metavar="SEED"
    )
    kernel_noise: str | None = option(
        None, "NumPy: relative noise behind operations, in u", metavar="OPERATION=SIZE,..."
    )
