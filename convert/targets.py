"""The targets of conversions: the dialect and the formats of each, and the format that a path means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..backends.naming import NATIVE
from .checkpoint import Checkpoint
from .formats import FORMATS
from .tensors import CheckpointProblem


@dataclass(frozen=True)
class Target:
    """A framework or library that has files of its own."""

    dialect: str
    formats: tuple[str, ...]  # that its own loader reads, the default one first


TARGETS = {
    "torch": Target("polymae", ("pth", "safetensors")),
    "megengine": Target("megengine", ("megengine",)),
    "mindspore": Target("mindspore", ("mindspore", "safetensors")),
    "oneflow": Target("polymae", ("oneflow",)),
    "numpy": Target("polymae", ("npz",)),
    "huggingface": Target("huggingface", ("shards",)),
    "timm": Target("timm", ("safetensors", "pth")),
    "safetensors": Target("polymae", ("safetensors",)),
}


def target_of(framework: str) -> Target:
    """The row of a framework or library. Raises CheckpointProblem for another name."""
    if framework not in TARGETS:
        raise CheckpointProblem(
            f"There is no checkpoint format for {framework!r}; there are {', '.join(TARGETS)}.", code="bad-argument"
        )
    return TARGETS[framework]


def default_ending(framework: str, form: str | None = None) -> str:
    """The ending of a framework's files; "" for a folder. Raises CheckpointProblem for an unknown format."""
    return FORMATS[require_format(form or target_of(framework).formats[0])].ENDINGS[0]


def require_format(form: str) -> str:
    """The name itself of a format. Raises CheckpointProblem for an unknown one."""
    if form not in FORMATS:
        raise CheckpointProblem(f"Unknown format {form!r}; there are {', '.join(FORMATS)}.", code="bad-argument")
    return form


def format_for(framework: str, path: Path, requested: str | None = None) -> str:
    """The format that a path means, or the requested one. Raises CheckpointProblem for an ending of another format."""
    offered = (require_format(requested),) if requested is not None else target_of(framework).formats
    ending = path.suffix.lower()
    # An existing folder has its own message, where it would be written.
    if not ending and not FORMATS[offered[0]].FOLDER and not path.is_dir():
        usual = " or ".join(FORMATS[offered[0]].ENDINGS)
        raise CheckpointProblem(
            f"{path} has no ending, by which loaders know a file; name one that ends in {usual}.", code="bad-argument"
        )
    for name in offered:
        if ending in FORMATS[name].ENDINGS:
            return name
    taken = {e for form in FORMATS.values() for e in form.ENDINGS if e}
    wanted = [e for name in offered for e in FORMATS[name].ENDINGS if e]
    # MindSpore's loader insists on the ending; the others take any, but not one that promises another format.
    if ending in taken or "mindspore" in offered:
        raise CheckpointProblem(
            f"{path} does not end as {requested or framework} files do: "
            f"{' or '.join(wanted) or 'a folder, without such an ending'}.",
            code="bad-argument",
        )
    return offered[0]


def is_native(checkpoint: Checkpoint, framework: str) -> bool:
    """Whether a framework's own loader reads a file as it is: its usual format, its own names, float32, nothing else in it.

    MegEngine's and OneFlow's loaders run the pickle in the file. They get none in which a name is not known, even where nothing
    of it is left: a call whose value the pickle drops is made all the same.
    """
    row, identified = TARGETS.get(framework), checkpoint.identified
    return (
        row is not None
        and checkpoint.format == row.formats[0]
        and identified.dialect.spellings.get(identified.contents) == NATIVE.get(framework)
        and not (checkpoint.extras or checkpoint.unknown or identified.prefix)
        and all(tensor.dtype == "float32" for tensor in checkpoint.stored.values())
    )
