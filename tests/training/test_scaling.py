"""The loss scale: the same as torch.amp.GradScaler's after every step."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from untested import require

from polymae.files.errors import Problem
from polymae.training import scaling
from polymae.training.scaling import LossScale, Scaling

SETTINGS = {
    "defaults": Scaling(),
    "short": Scaling(interval=3),
    "near overflow": Scaling(initial=2.0**126, interval=1),
    "near nothing": Scaling(initial=2.0**-100, interval=4),
    "odd": Scaling(initial=1000.1, growth=1.7, backoff=0.3, interval=2),
}


def theirs(settings: Scaling, finite: list[bool]) -> list[tuple[float, int]]:
    """GradScaler's scale and tracker after each step of a sequence."""
    import torch

    parameter = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    scaler = torch.amp.GradScaler(
        "cpu", settings.initial, settings.growth, settings.backoff, growth_interval=settings.interval
    )
    scaler.scale(torch.zeros(1))
    found = []
    for each in finite:
        parameter.grad = torch.tensor([1.0 if each else np.inf])
        scaler.step(optimizer)
        scaler.update()
        state = scaler.state_dict()
        found.append((state["scale"], state["_growth_tracker"]))
    return found


def ours(settings: Scaling, finite: list[bool]) -> list[tuple[float, int]]:
    found, scale = [], LossScale(settings)
    for each in finite:
        scale.update(each)
        found.append((scale.scale, scale.finite))
    return found


def sequence(seed: int, overflows: float, length: int = 40) -> list[bool]:
    return (np.random.default_rng(seed).random(length) >= overflows).tolist()


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("overflows", [0, 0.1, 0.5, 1])
def test_it_is_gradscalers(name: str, overflows: float) -> None:
    require("torch")
    finite = sequence(1, overflows)
    expected = theirs(SETTINGS[name], finite)
    assert ours(SETTINGS[name], finite) == [(float(np.float32(scale)), tracker) for scale, tracker in expected]


def test_two_thousand_steps() -> None:
    require("torch")
    finite = [True] * 1999 + [False] + [True] * 2001
    expected = theirs(Scaling(), finite)
    assert ours(Scaling(), finite) == expected
    assert expected[-1] == (65536.0, 1)  # halved once, doubled once


@pytest.mark.parametrize("fault", ["grows a step late", "overflows do not count anew", "growth beyond float32"])
def test_another_rule_is_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require("torch")
    settings = SETTINGS["near overflow" if "float32" in fault else "short"]
    finite = sequence(2, 0.2)
    expected = theirs(settings, finite)
    assert ours(settings, finite) == expected
    update = LossScale.update

    def late(self: LossScale, finite: bool) -> None:
        self.finite -= 1 if self.finite == 1 else 0
        update(self, finite)

    def kept(self: LossScale, finite: bool) -> None:
        before = self.finite
        update(self, finite)
        self.finite = self.finite if finite else before

    if "float32" in fault:
        monkeypatch.setattr(scaling, "_float32", lambda value: value)
    else:
        monkeypatch.setattr(LossScale, "update", late if "late" in fault else kept)
    assert ours(settings, finite) != expected


def test_only_float16_is_scaled() -> None:
    assert LossScale.of("float16").scale == 65536
    for precision in ("float32", "bfloat16"):
        scale = LossScale.of(precision)
        scale.update(False)
        assert (scale.scale, scale.finite) == (1.0, 0)


def test_a_scale_of_which_nothing_is_left_stops_the_run() -> None:
    scale = LossScale(Scaling())
    with pytest.raises(Problem, match="whatever the scale"):
        for _ in range(200):
            scale.update(False)
    assert scale.scale > 0


def test_it_goes_on_from_its_state() -> None:
    first = LossScale(SETTINGS["odd"])
    for finite in sequence(3, 0.3, 7):
        first.update(finite)
    again = LossScale(SETTINGS["odd"])
    again.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for finite in sequence(4, 0.3):
        first.update(finite)
        again.update(finite)
        assert again.state_dict() == first.state_dict()


@pytest.mark.parametrize(
    "state",
    [
        {}, {"scale": 2.0}, {"scale": 0.0, "finite": 1}, {"scale": float("nan"), "finite": 1}, {"scale": "2", "finite": 1},
        {"scale": 2.0, "finite": -1}, {"scale": 2.0, "finite": 1.5}, {"scale": 2.0, "finite": True},
    ],
)  # fmt: skip
def test_what_is_no_state_is_refused(state: dict[str, Any]) -> None:
    scale = LossScale(Scaling(initial=8.0))
    with pytest.raises(Problem, match="Resume from another checkpoint"):
        scale.load_state_dict(state)
    assert scale.state_dict() == {"scale": 8.0, "finite": 0}


@pytest.mark.parametrize("wrong", [{"initial": 0.0}, {"growth": 0.5}, {"backoff": 1.0}, {"interval": 0}])
def test_numbers_that_make_no_rule_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Problem, match="backoff between"):
        Scaling(**wrong)
