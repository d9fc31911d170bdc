"""AdamW, its decay groups, clipping and schedule: every framework's against the float64 oracle, and that against torch."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from children import run_in

from polymae.backends.initial import initial_weights
from polymae.backends.optimization import Schedule, Settings, State, clip_scale, decay_of, trainable
from polymae.backends.presets import model_config
from polymae.backends.runtime import load_backend
from polymae.backends.spec import params
from polymae.compare.levels import small
from polymae.compare.levels.optimizer import CASES, injected, optimizer_steps, taps
from polymae.compare.levels.small import training_config
from polymae.compare.limits.findings import Finding
from polymae.compare.limits.tensors import judge_tensor
from polymae.compare.limits.tolerance import APriori

MODEL = "mae_vit_test_patch8"
CONFIG = model_config(MODEL)
SMALL = training_config(CONFIG)
DECAYED = {
    "cls_token", "mask_token", "patch_embed.proj.weight", "decoder_embed.weight", "decoder_pred.weight",
    *(
        f"{block}.{name}.weight"
        for block in ("blocks.0", "blocks.1", "decoder_blocks.0")
        for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    ),
}  # fmt: skip


def recorded(dtype: str) -> dict[str, np.ndarray]:
    runtime = load_backend("numpy")
    return dict(optimizer_steps(runtime, CONFIG, "cpu", dtype))


def judged(actual: dict[str, Any]) -> list[Finding]:
    oracle, twin = recorded("float64"), recorded("float32")
    assert list(actual) == [tap.name for tap in taps(CONFIG)]
    return [
        judge_tensor(
            "optimizer", tap, actual[tap.name], oracle[tap.name], [] if tap.exact else [twin[tap.name]], APriori(3)
        )
        for tap in taps(CONFIG)
    ]


def test_decay_groups_are_the_official_ones() -> None:
    decay = decay_of(SMALL, Settings(weight_decay=0.05))
    assert {name for name, value in decay.items() if value == 0.05} == DECAYED
    assert {name for name, value in decay.items() if value == 0} == {p.name for p in trainable(SMALL)} - DECAYED
    assert not {"pos_embed", "decoder_pos_embed"} & decay.keys()  # frozen
    assert decay_of(replace(SMALL, train_positions=True), Settings())["pos_embed"] == 0.05
    assert (
        not {"head_norm.mean", "head_norm.var"}
        & decay_of(model_config("vit_test_patch8", head_norm=True), Settings()).keys()
    )


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 0), (1, 0.05), (10, 0.5), (20, 1), (40, 0.5 + math.sqrt(0.5) / 2), (60, 0.5), (100, 0)]
)
def test_schedule(step: int, rate: float) -> None:
    schedule = Schedule(lr=1.0, warmup_epochs=2, epochs=10, steps_per_epoch=10)
    assert schedule.rate(step) == pytest.approx(rate, abs=1e-15)
    higher = rate if step < 20 else 0.1 + 0.9 * rate  # the minimum is that of the cosine, not of the warm-up
    assert replace(schedule, min_lr=0.1).rate(step) == pytest.approx(higher, abs=1e-15)
    assert replace(schedule, warmup_epochs=0).rate(0) == 1


def test_clipping() -> None:
    assert clip_scale(2.0, Settings(clip=1.0)) == 1 / (2 + 1e-6)
    assert clip_scale(0.5, Settings(clip=1.0)) == 1
    assert clip_scale(1e9, Settings()) == 1


@pytest.mark.parametrize("clip", [None, 1e-3, 1e3])
@pytest.mark.parametrize("betas", [(0.9, 0.95), (0.9, 0.999)])
def test_the_oracle_is_torch_in_float64(clip: float | None, betas: tuple[float, float]) -> None:
    """Against torch.optim.AdamW itself, not against our backend for torch."""
    import torch

    rng = np.random.default_rng(0)
    settings = Settings(betas=betas, clip=clip)
    runtime = load_backend("numpy")
    weights = injected(SMALL, CASES[0])[0]
    model = runtime.build(SMALL, weights, dtype="float64")
    optimizer = runtime.optimizer(model, settings)
    tensors = {name: torch.tensor(weights[name], dtype=torch.float64, requires_grad=True) for name in optimizer.decay}
    groups = [
        {"params": [tensors[n] for n in tensors if n in DECAYED], "weight_decay": 0.05},
        {"params": [tensors[n] for n in tensors if n not in DECAYED], "weight_decay": 0.0},
    ]
    theirs = torch.optim.AdamW(groups, lr=1.0, betas=betas, eps=1e-8)
    for step in range(5):
        gradients = {name: 1e-4 * rng.standard_normal(weights[name].shape) for name in tensors}
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(gradients[name])
        for group in theirs.param_groups:
            group["lr"] = 1e-3 / (step + 1)
        norm = torch.nn.utils.clip_grad_norm_(tensors.values(), math.inf if clip is None else clip)
        theirs.step()
        assert optimizer.step(gradients, 1e-3 / (step + 1)) == pytest.approx(float(norm), rel=1e-13)
    after = runtime.weights(model)
    for name, tensor in tensors.items():
        expected = tensor.detach().numpy()
        assert np.linalg.norm(after[name] - expected) <= 1e-13 * np.linalg.norm(expected - weights[name]), name
    assert np.array_equal(after["pos_embed"], weights["pos_embed"])  # frozen


SCRIPT = """
import numpy as np
from polymae.backends.optimization import Settings
from polymae.backends.presets import model_config
from polymae.backends.runtime import load_backend
from polymae.compare.record.inputs import random_inputs
from polymae.compare.levels.optimizer import optimizer_steps
from polymae.training.steps import take
config, runtime = model_config("{model}"), load_backend("{framework}")
runtime.setup()
np.savez("{folder}/float32.npz", **dict(optimizer_steps(runtime, config, "cpu", "float32")))
if "float64" in runtime.DTYPES:
    np.savez("{folder}/float64.npz", **dict(optimizer_steps(runtime, config, "cpu", "float64")))

def go_on(model, optimizer, steps):
    training = runtime.training(model, optimizer, compiled={compiled})
    return [take(training, random_inputs(config, seed=s), 1e-3) for s in steps]

model = runtime.build(config)
optimizer = runtime.optimizer(model, Settings(clip=1.0))
assert optimizer.state().step == 0 and not any(array.any() for array in optimizer.state().m.values())
go_on(model, optimizer, range(2))
state, weights = optimizer.state(), runtime.weights(model)
losses = go_on(model, optimizer, range(2, 4))
again = runtime.build(config, weights)
resumed = runtime.optimizer(again, Settings(clip=1.0))
resumed.load_state(state)
assert state.step == 2 and optimizer.state().step == 4
assert go_on(again, resumed, range(2, 4)) == losses, "training does not go on where its state was taken"
for name, array in runtime.weights(model).items():
    assert np.array_equal(array, runtime.weights(again)[name]), name
    if name in state.v:
        assert state.v[name].shape == array.shape and np.array_equal(optimizer.state().v[name], resumed.state().v[name])

def frozen():
    return [name for name, p in runtime.named_parameters(model).items() if getattr(p, "requires_grad", None) is False]

before = frozen()
assert before or runtime.framework in ("numpy", "megengine"), "they have no such switch"
assert "pos_embed" in runtime.run(model, random_inputs(config), gradients=True).gradients
assert frozen() == before, "a run with gradients unfreezes parameters"
fresh = runtime.optimizer(again, Settings(clip=1.0))
assert go_on(again, fresh, range(4, 6)) != go_on(model, optimizer, range(4, 6)), "moments make no difference"
"""


def test_every_framework_is_within_roundoff(framework: str, tmp_path: Path) -> None:
    run_in(framework, SCRIPT.format(framework=framework, model=MODEL, folder=tmp_path, compiled=False))
    with np.load(tmp_path / "float32.npz") as found:
        findings = judged(dict(found))
    assert {finding.verdict for finding in findings} == {"exact", "roundoff"}, [
        f for f in findings if f.verdict == "fault"
    ]
    assert max(finding.ratio for finding in findings) < 0.8
    if framework == "megengine":  # it has no float64
        return
    oracle = recorded("float64")
    with np.load(tmp_path / "float64.npz") as found:
        for name, expected in oracle.items():
            assert np.linalg.norm(found[name] - expected) <= 2e-13 * np.linalg.norm(expected), name


def planted(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """A wrong optimizer in the NumPy backend."""
    from polymae.backends import optimization
    from polymae.backends.numpy import optimizer
    from polymae.backends.numpy.runtime import Backend

    class NoBiasCorrection(optimizer.AdamW):
        def step(self, gradients: Any, lr: float) -> float:
            self.steps += 10**6
            return super().step(gradients, lr)

    class ClipEachTensor(optimizer.AdamW):
        def step(self, gradients: Any, lr: float) -> float:
            norms = {n: self.norm([g]) for n, g in gradients.items()}
            return super().step({n: clip_scale(norms[n], self.settings) * g for n, g in gradients.items()}, lr)

    class Coupled(optimizer.AdamW):
        def step(self, gradients: Any, lr: float) -> float:
            parameters = self.runtime.trained(self.model)
            return super().step({n: g + self.decay[n] * parameters[n] for n, g in gradients.items()}, lr)

    class OneStepLate(Schedule):
        def rate(self, step: int) -> float:
            return super().rate(step + 1)

    wrong = {"no bias correction": NoBiasCorrection, "each tensor clipped": ClipEachTensor, "coupled decay": Coupled}
    settings = {"eps 1e-6": {"eps": 1e-6}, "beta2 .999": {"betas": (0.9, 0.999)}, "no clipping": {"clip": None}}
    spared = {
        "decay on biases": lambda name, decay: 0.05,
        "no decay on tokens": lambda name, decay: 0.0 if "token" in name else decay,
    }
    if fault == "schedule off by one":
        monkeypatch.setattr(small, "SCHEDULE", OneStepLate(**vars(small.SCHEDULE)))
    elif fault in spared:
        rule = spared[fault]
        monkeypatch.setattr(
            optimization, "decay_of", lambda config, given: {n: rule(n, d) for n, d in decay_of(config, given).items()}
        )
    else:
        kind, changes = wrong.get(fault, optimizer.AdamW), settings.get(fault, {})
        monkeypatch.setattr(
            Backend, "optimizer", lambda self, model, given: kind(self, model, replace(given, **changes))
        )


@pytest.mark.parametrize(
    ("fault", "located_at"),
    [
        ("eps 1e-6", "optimizer/first/update/cls_token"),
        ("beta2 .999", "optimizer/first/v/cls_token"),
        ("no bias correction", "optimizer/first/update/cls_token"),
        ("coupled decay", "optimizer/first/norm"),
        ("decay on biases", "optimizer/decay"),
        ("no decay on tokens", "optimizer/decay"),
        ("no clipping", "optimizer/later/m/cls_token"),
        ("each tensor clipped", "optimizer/later/norm"),
        ("schedule off by one", "optimizer/lr"),
    ],
)
def test_a_fault_is_seen_and_placed(monkeypatch: pytest.MonkeyPatch, fault: str, located_at: str) -> None:
    with monkeypatch.context() as context:
        planted(context, fault)
        actual = recorded("float32")
    wrong = [finding for finding in judged(actual) if finding.verdict == "fault"]
    assert wrong[0].name == located_at
    assert max(finding.ratio for finding in wrong if "update" in finding.name) > 2


def test_what_an_optimizer_does_not_hold_is_told() -> None:
    """So that a frozen table that is trained, or a parameter that is forgotten, shows in the decay."""
    names = [param.name for param in params(SMALL)]
    right = recorded("float32")["optimizer/decay"]
    assert right[names.index("pos_embed")] == -1
    assert right[names.index("mask_token")] == 0.05
    assert (right == -1).sum() == 2


def test_moments_are_by_spec_name_and_shape() -> None:
    runtime = load_backend("numpy")
    model = runtime.build(SMALL, initial_weights(SMALL))
    optimizer = runtime.optimizer(model, Settings())
    _, _, state = injected(SMALL, CASES[1])
    optimizer.load_state(State(3, state.m, state.v))
    held = optimizer.state()
    assert held.step == 3
    assert list(held.m) == list(held.v) == [param.name for param in trainable(SMALL)]
    assert all(np.array_equal(held.m[name], state.m[name]) for name in held.m)
