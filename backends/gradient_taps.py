"""What a run records of its backward pass: the loss's gradient at the taps (`dy/<tap>`) and for the parameters.

All of it follows from the inputs and the parameters that the spec gives each tap.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from .config import Config
from .spec import Param, Tap, params, taps

_LOSS = {"mean": "loss"}  # what the operation behind the prediction is called here


@lru_cache
def gradient_taps(config: Config) -> tuple[Tap, ...]:
    """The taps whose gradient is recorded, in the order of the backward pass.

    They are those that depend on a parameter; not the loss itself, and none that only sums take, which pass on a copy. The
    operation is the one that the gradient has just passed, of several the first in the forward pass.
    """
    modules = {param.module for param in params(config)}
    users = _users(config)
    learned: set[str] = set()
    for tap in taps(config):
        if modules & set(tap.by or (tap.name,)) or learned & set(tap.of):
            learned.add(tap.name)
    return tuple(
        Tap(tap.name, _LOSS.get(users[tap.name][0].operation, users[tap.name][0].operation))
        for tap in reversed(taps(config))
        if tap.name in learned and any(user.operation != "add" for user in users[tap.name])
    )


def backward_taps(config: Config) -> Iterator[Tap]:
    """`dy/<tap>` and `grad/<parameter>` in the order of the backward pass, which ends where the forward began."""
    listed = gradient_taps(config)
    belonging: dict[str, list[Param]] = {}
    outputs = _outputs(config, {tap.name for tap in listed})
    for param in reversed(params(config)):
        belonging.setdefault(outputs[param.module], []).append(param)
    for tap in listed:
        yield Tap(f"dy/{tap.name}", f"{tap.operation} backward")
        for param in belonging.get(tap.name, ()):
            yield Tap(f"grad/{param.name}", param.role)


def _users(config: Config) -> dict[str, list[Tap]]:
    """The taps that take a tap, by its name, in the order of the forward pass."""
    users: dict[str, list[Tap]] = {tap.name: [] for tap in taps(config)}
    for tap in taps(config):
        for name in tap.of:
            users.setdefault(name, []).append(tap)
    return users


def _outputs(config: Config, recorded: set[str]) -> dict[str, str]:
    """By module or parameter, the recorded tap whose gradient completes its own: that of its first use, or a copy's source."""
    users = _users(config)
    outputs: dict[str, str] = {}
    for tap in taps(config):
        name = tap.name
        while name not in recorded and users[name]:
            name = users[name][0].name
        for module in tap.by or (tap.name,):
            outputs.setdefault(module, name)
    return outputs
