"""What a dialect is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ...backends.config import Config
from ...backends.naming import Spelling
from ...backends.spec import Shape
from ..tensors import Tensor

Contents = Literal["mae", "encoder", "classifier", "headless", "probe"]
# The kinds of file, for people. A linear probe is a classifier whose head normalises what it is given.
KINDS: dict[Contents, str] = {
    "mae": "autoencoder",
    "encoder": "encoder alone",
    "classifier": "classifier",
    "headless": "classifier without a head",
    "probe": "linear probe",
}
OF_CLASSIFIERS: tuple[Contents, ...] = ("classifier", "headless", "probe")
Shapes = Mapping[str, Shape]
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Sign:
    """A tensor that tells dialects apart: a pattern for its whole name and, where it matters, its number of axes."""

    name: str
    axes: int | None = None

    def found(self, shapes: Shapes) -> str | None:
        """The first tensor that shows this sign."""
        for name, shape in shapes.items():
            if self.axes in (None, len(shape)) and re.fullmatch(self.name, name):
                return name
        return None


# Settings that only an autoencoder computes with, or that are another thing in a classifier.
_OF_AUTOENCODERS = ("masking", "loss_over", "train_positions", "variance")


@dataclass(frozen=True)
class Dialect:
    """One row. A file is in it where one of `shows` is there and none of `never` is.

    title: for people. spellings: by kind of file. computes: the settings its program always computes with, where it
    has no choice (computes_in: others in one kind of file); one_eps: all its norms have that of the blocks. allows:
    the values that it can express of a setting which decides about parameters (allows_in: others in one kind of file).
    derived: the spec's tensors that its files do not hold, made by `derive` from what they do hold; `supply` does the
    reverse, raising CheckpointProblem where it cannot. sources: what its files hold for `derive` alone. unused: what
    they hold beside the weights, dropped by name. config_file: whether a config.json in the same folder says what the
    model is. metadata: what a .safetensors of it says of itself. wrapper: under which name a .pth of it keeps the
    tensors; folder: in which folder inside a OneFlow folder. explicit: no file shows it, it must be asked for. notes:
    what to say of a file of it, by kind, unless its provenance tells more.
    """

    name: str
    title: str
    spellings: Mapping[Contents, Spelling]
    shows: tuple[Sign, ...]
    never: tuple[Sign, ...] = ()
    computes: Mapping[str, Any] = field(default_factory=dict)
    computes_in: Mapping[Contents, Mapping[str, Any]] = field(default_factory=dict)
    allows: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    allows_in: Mapping[Contents, Mapping[str, tuple[Any, ...]]] = field(default_factory=dict)
    derived: frozenset[str] = frozenset()
    derive: Callable[[Tensors, Shapes], dict[str, Tensor]] | None = None
    supply: Callable[[Config, Tensors], dict[str, Tensor]] | None = None
    sources: str = ""
    unused: str = ""
    config_file: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    wrapper: str | None = None
    folder: str | None = None
    one_eps: bool = False
    explicit: bool = False
    notes: Mapping[Contents, str] = field(default_factory=dict)

    def function(self, contents: Contents) -> dict[str, Any]:
        """The settings that its program has no choice about, in this kind of file."""
        common = {n: value for n, value in self.computes.items() if contents == "mae" or n not in _OF_AUTOENCODERS}
        return {**common, **self.computes_in.get(contents, {})}


# What only our own spelling can say of a model's parameters.
OFFICIAL_PARTS: Mapping[str, tuple[Any, ...]] = {
    "head": ("linear",), "decoder_norm": (True,), "pooling": ("gap", "cls")
}  # fmt: skip
# Where a program cuts its images into patches with 3 channels and one side.
PLAIN_IMAGES: Mapping[str, tuple[Any, ...]] = {"square": (True,), "in_chans": (3,)}
# How the official program and those that follow it compute.
OFFICIAL_NUMERICS: Mapping[str, Any] = {
    "norm_eps": 1e-6, "block_norm_eps": 1e-6, "masking": "shuffled", "loss_over": "removed",
    "train_positions": False, "gelu": "erf", "variance": "unbiased", "precision": "float32",
}  # fmt: skip
EXACT: Mapping[str, Any] = {"gelu": "erf", "variance": "unbiased", "precision": "float32"}
# What a program computes that has no place in a configuration.
UNCONFIGURED = tuple(EXACT)
# What training saves along with the weights in MindSpore: the optimizer's state, named after the parameters.
MINDSPORE_TRAINING = (
    r"(adam_[mv]|moments?[12v]?|accum|stat|exp_avg(_sq)?)\..*"
    r"|(learning_rate|lr|global_step|beta[12]_power|scale_sense|loss_scale|current_iterator_step|last_overflow_iterator_step"
    r"|epoch_num|step_num|cur_epoch_num|cur_step_num|loss|optimizer\..*)"
)
