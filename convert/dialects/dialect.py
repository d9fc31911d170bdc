"""A dialect: how a framework or project spells the spec, as data."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...backends.config import Config
from ...backends.naming import Spelling
from ...backends.spec import Shape
from ..tensors import Tensor
from .contents import Contents

Shapes = Mapping[str, Shape]
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Sign:
    """A tensor that tells dialects apart: a pattern for its whole name and, if it matters, its number of axes."""

    name: str
    axes: int | None = None

    def match(self, shapes: Shapes) -> str | None:
        """The name of the first tensor that shows this sign; None if none does."""
        for name, shape in shapes.items():
            if self.axes in (None, len(shape)) and re.fullmatch(self.name, name):
                return name
        return None


# Settings that only an autoencoder computes with, or that mean something else in a classifier.
_OF_AUTOENCODERS = ("masking", "loss_over", "train_positions", "variance")


@dataclass(frozen=True)
class Dialect:
    """One row. A file is in a dialect if it shows one of the signs `shows` and none of the signs `never`."""

    name: str
    title: str  # for people
    spellings: Mapping[Contents, Spelling]  # for each kind of file that the dialect has
    shows: tuple[Sign, ...]
    never: tuple[Sign, ...] = ()
    # The settings that its program always computes with, and those of one kind of file alone.
    computes: Mapping[str, Any] = field(default_factory=dict)
    computes_in: Mapping[Contents, Mapping[str, Any]] = field(default_factory=dict)
    # The values that it can express, of settings that decide about parameters; again for one kind of file alone.
    allows: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    allows_in: Mapping[Contents, Mapping[str, tuple[Any, ...]]] = field(default_factory=dict)
    derived: frozenset[str] = frozenset()  # spec names of tensors that its files do not hold
    # Makes the derived tensors from the file's own, for these shapes by spec name.
    derive: Callable[[Tensors, Shapes], dict[str, Tensor]] | None = None
    # Makes the tensors that its files hold beside the spelled ones. Raises CheckpointProblem if it cannot.
    supply: Callable[[Config, Tensors], dict[str, Tensor]] | None = None
    sources: str = ""  # pattern: tensors that its files hold for `derive` alone
    unused: str = ""  # pattern: tensors in its files that are no weights; they are dropped by name
    config_file: bool = False  # whether a config.json in the same folder describes the model
    metadata: Mapping[str, str] = field(default_factory=dict)  # of its .safetensors files
    wrapper: str | None = None  # the key that holds the tensors in its .pth files
    folder: str | None = None  # the folder that holds the tensors inside its OneFlow folders
    one_eps: bool = False  # whether all its norms have the eps of the norms inside the blocks
    explicit: bool = False  # no file shows it: a user or a provenance has to name it
    # A sentence for people who read such a file without a provenance, by kind of file.
    notes: Mapping[Contents, str] = field(default_factory=dict)

    def function(self, contents: Contents) -> dict[str, Any]:
        """The settings that its program always computes with, in this kind of file."""
        common = {n: value for n, value in self.computes.items() if contents == "mae" or n not in _OF_AUTOENCODERS}
        return {**common, **self.computes_in.get(contents, {})}


# The usual values of settings that only our own spelling can express otherwise.
OFFICIAL_PARTS: Mapping[str, tuple[Any, ...]] = {
    "head": ("linear",), "decoder_norm": (True,), "pooling": ("gap", "cls")
}  # fmt: skip
# Of programs that cut square images with 3 channels into patches.
PLAIN_IMAGES: Mapping[str, tuple[Any, ...]] = {"square": (True,), "in_chans": (3,)}
# The settings that the official program, and those that follow it, compute with.
OFFICIAL_NUMERICS: Mapping[str, Any] = {
    "norm_eps": 1e-6, "block_norm_eps": 1e-6, "masking": "shuffled", "loss_over": "removed",
    "train_positions": False, "gelu": "erf", "variance": "unbiased", "precision": "float32",
}  # fmt: skip
EXACT: Mapping[str, Any] = {"gelu": "erf", "variance": "unbiased", "precision": "float32"}
# The settings of a program that a configuration has no place for.
UNCONFIGURED = tuple(EXACT)
# The state of MindSpore's optimizers, which training saves beside the weights and names after the parameters.
MINDSPORE_TRAINING = (
    r"(adam_[mv]|moments?[12v]?|accum|stat|exp_avg(_sq)?)\..*"
    r"|(learning_rate|lr|global_step|beta[12]_power|scale_sense|loss_scale|current_iterator_step|last_overflow_iterator_step"
    r"|epoch_num|step_num|cur_epoch_num|cur_step_num|loss|optimizer\..*)"
)
