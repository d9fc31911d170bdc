"""A wrong operation is told from those that only receive its error, in the forward pass and in the backward pass."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frameworks import frameworks_under_test
from runs import CONFIG, FOLDER, MODEL, Edited, inputs, oracle, plain, recorded

from polymae.backends.config import Config
from polymae.backends.gradient_taps import backward_taps
from polymae.backends.initial import initial_weights
from polymae.backends.numpy import backward
from polymae.backends.numpy.runtime import Backend
from polymae.backends.presets import model_config
from polymae.backends.spec import loss_taps, taps
from polymae.compare import OF_ONE_RUN
from polymae.compare.judge import localise as module
from polymae.compare.judge.local_error import OwnTaps, introduced, oracle_model
from polymae.compare.judge.localise import localise
from polymae.compare.judge.traces import judge
from polymae.compare.limits.findings import Finding, Judgement
from polymae.compare.limits.metrics import U
from polymae.compare.options import Run
from polymae.compare.record.inputs import random_inputs
from polymae.compare.record.record import record
from polymae.compare.trace import Outcome, Trace

LEVELS = (*OF_ONE_RUN, "gradients")
SMALL = (
    "img_size=16,patch_size=4,embed_dim=24,depth=2,num_heads=2,decoder_embed_dim=12,decoder_depth=2,decoder_num_heads=2"
)
MODELS = [
    MODEL,
    f"{SMALL},head=conv,masking=raster,loss_over=all,norm_pix_loss=True,decoder_norm=False",
    f"{SMALL},head=conv",
    *[f"img_size=16,patch_size=8,embed_dim=24,depth=2,num_heads=2,num_classes=5,pooling={p}" for p in ("gap", "cls", "mean")],
    "img_size=16,patch_size=8,embed_dim=24,depth=1,num_heads=2,num_classes=5,head_norm=True",
]  # fmt: skip


def localised(candidate: Trace, **changes: Any) -> Judgement:
    """A candidate, judged and localised; changes: other arguments."""
    given = {"twins": [Trace(recorded(f"twin{seed}", twin=seed)) for seed in (1, 2)]} | changes
    judgements = judge(Trace(oracle()), given["twins"], {"candidate": candidate}, LEVELS)
    localise(judgements, {"candidate": candidate}, given["twins"], CONFIG, initial_weights(CONFIG))
    return judgements[0]


def finding(judgement: Judgement, name: str) -> Finding:
    return next(found for found in judgement.findings if found.name == name)


def to_blame(judgement: Judgement) -> list[str]:
    return [found.name for found in judgement.findings if found.introduces]


def faulty(monkeypatch: pytest.MonkeyPatch, name: str, plant: Callable[[pytest.MonkeyPatch], None]) -> Trace:
    """NumPy's run with a fault, which is gone when the run is judged."""
    path = FOLDER / f"{name}.npz"
    with monkeypatch.context() as planted:
        plant(planted)
        record(Run("numpy", path, inputs(), model=MODEL, levels=LEVELS))
    return Trace(path)


def weights_of(config: Config) -> dict[str, Any]:
    """Initial weights with noise on all of them: zero biases and unit scales would hide a missing term."""
    rng = np.random.default_rng(3)
    return {
        name: (array + 0.1 * rng.standard_normal(array.shape)).astype(np.float32)
        for name, array in initial_weights(config, 1).items()
    }


@pytest.mark.parametrize("model", MODELS)
def test_the_oracle_introduces_nothing_anywhere(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward recomputed from its own tensors are what it had, and no tensor is left out."""
    config = model_config(model)
    monkeypatch.setattr("polymae.compare.record.source.initial_weights", lambda config, seed: weights_of(config))
    np.savez(tmp_path / "in.npz", **random_inputs(config, batch=3))
    levels = ("forward", "loss", "gradients")
    record(Run("numpy", tmp_path / "t.npz", tmp_path / "in.npz", model=model, dtype="float64", levels=levels))
    trace = Trace(tmp_path / "t.npz")
    found = dict(introduced(OwnTaps(trace), oracle_model(config, weights_of(config)), gradients=True))
    expected = [tap.name for tap in (*taps(config), *loss_taps(config), *backward_taps(config))]
    assert sorted(found) == sorted(expected)
    assert {name: size for name, size in found.items() if size > 1e-5} == {}


def test_a_wrong_eps_in_the_last_norm_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def plant(planted: pytest.MonkeyPatch) -> None:
        build = Backend.build

        def with_other_eps(*arguments: Any) -> Any:
            model = build(*arguments)
            model.norm.eps = 1e-5
            return model

        planted.setattr(Backend, "build", with_other_eps)

    trace = faulty(monkeypatch, "eps", plant)
    for name in ("latent", "pred", "loss"):
        np.testing.assert_allclose(trace[name], Trace(oracle())[name], rtol=1e-4, atol=1e-5)  # what others look at
    judgement = localised(trace)
    assert judgement.verdict == "fault"
    first = judgement.first_wrong
    assert first is not None
    assert first.name == "latent"
    assert first.introduced > 5 * first.introduced_limit
    assert first.cause.startswith("layer norm introduces ")
    assert f"limit {first.introduced_limit:.3g}" in first.cause
    # Its backward pass is wrong as well, and what is behind it in both directions is not.
    assert set(to_blame(judgement)) <= {"latent", "grad/norm.weight", "dy/blocks.2"}


def _scaled(function: str, name: str, at: int) -> Callable[[pytest.MonkeyPatch], None]:
    """One function of the backward pass gives 1.0001 times its result where its argument `at` is this name."""

    def plant(planted: pytest.MonkeyPatch) -> None:
        right = getattr(backward, function)

        def wrong(*arguments: Any) -> Any:
            result = right(*arguments)
            return result * np.float32(1.0001) if arguments[at] == name else result

        planted.setattr(backward, function, wrong)

    return plant


def _wrong_gelu(planted: pytest.MonkeyPatch) -> None:
    """The derivative of another function, in every block."""
    planted.setattr(backward, "_gelu", lambda x, dy: dy / (1 + np.exp(-np.float32(1.702) * x)))


def _wrong_scale(planted: pytest.MonkeyPatch) -> None:
    """A gradient for one norm's scale that is a little off, and nothing behind it."""
    right = backward._layer_norm

    def wrong(layer: Any, x: Any, dy: Any, grads: Any, name: str) -> Any:
        result = right(layer, x, dy, grads, name)
        if name == "blocks.1.norm2":
            grads[f"{name}.weight"] = grads[f"{name}.weight"] * np.float32(1.0001)
        return result

    planted.setattr(backward, "_layer_norm", wrong)


@pytest.mark.parametrize(
    ("plant", "names", "cause"),
    [
        (_wrong_gelu, ["dy/decoder_blocks.1.mlp.fc1", "dy/blocks.0.mlp.fc1"], "gelu backward in decoder block 1"),
        (_scaled("_attn_qkv", "blocks.0", 3), ["dy/blocks.0.attn.qkv"], "softmax backward in block 0"),
        (_scaled("_layer_norm", "blocks.2.norm1", 4), ["dy/blocks.1"], "layer norm backward behind block 1"),
        (_wrong_scale, ["grad/blocks.1.norm2.weight"], "gradient of a norm.weight in block 1"),
    ],
)
def test_a_fault_of_the_backward_pass_alone(
    monkeypatch: pytest.MonkeyPatch, plant: Callable[[pytest.MonkeyPatch], None], names: list[str], cause: str
) -> None:
    judgement = localised(faulty(monkeypatch, f"backward {names[0].replace('/', ' ')}", plant))
    blamed = to_blame(judgement)
    assert judgement.first_wrong is not None
    assert judgement.first_wrong.name == names[0] == blamed[0]
    assert judgement.first_wrong.cause.startswith(f"{cause} introduces ")
    assert set(names) <= set(blamed)
    if plant is not _wrong_gelu:
        assert blamed == names
    assert judgement.first_wrong.introduced > 2 * judgement.first_wrong.introduced_limit
    forward = [found.verdict for found in judgement.findings if found.level in ("forward", "loss")]
    assert "fault" not in forward


@pytest.mark.parametrize("framework", frameworks_under_test())
def test_a_right_framework_introduces_no_more_than_roundoff(
    framework: str, tmp_path: Path, recording: Callable[[Run], Outcome]
) -> None:
    outcome = recording(Run(framework, tmp_path / "t.npz", inputs(), model=MODEL, levels=LEVELS))
    assert outcome.trace is not None, outcome.reason
    judgement = localised(Trace(outcome.trace))
    assert to_blame(judgement) == []
    computed = [found for found in judgement.findings if found.introduced_limit]
    exact = {tap.name for tap in taps(CONFIG) if tap.exact}
    expected = {tap.name for tap in (*taps(CONFIG), *loss_taps(CONFIG), *backward_taps(CONFIG))}
    assert {found.name for found in computed} == expected - exact
    assert max(found.introduced for found in computed) > 0.1  # it has measured something


def test_a_decision_that_does_not_follow_from_the_noise_is_to_blame() -> None:
    other = np.roll(Trace(plain())["ids_restore"], 1, axis=0)
    judgement = localised(Edited(plain(), {"ids_restore": other}))
    assert judgement.first_wrong is not None
    assert judgement.first_wrong.name == "ids_restore"
    assert judgement.first_wrong.introduced == np.count_nonzero(other != Trace(plain())["ids_restore"])


def test_amplification_is_the_ratio_of_the_errors_of_a_block() -> None:
    judgement = localised(Trace(plain()))
    for after, before in (("blocks.0", "tokens"), ("blocks.1", "blocks.0"), ("dy/blocks.0", "dy/blocks.1")):
        found = finding(judgement, after)
        assert found.amplification == pytest.approx(found.error / finding(judgement, before).error)
        assert 0.3 < found.amplification < 5
    assert finding(judgement, "blocks.1.norm1").amplification == 0


@pytest.mark.parametrize(("size", "verdict"), [(12.0, "explained"), (200.0, "fault")])
def test_a_known_kernel_explains_what_it_introduces(monkeypatch: pytest.MonkeyPatch, size: float, verdict: str) -> None:
    monkeypatch.setattr(module, "known_kernels", lambda environment, config: {"gelu backward": 10.0})
    name, rng = "dy/blocks.1.mlp.fc1", np.random.default_rng(0)
    right = Trace(plain())[name]
    wrong = right * (1 + size * U * rng.standard_normal(right.shape)).astype(np.float32)
    judgement = localised(Edited(plain(), {name: wrong}))
    found = finding(judgement, name)
    assert found.introduced == pytest.approx(size, rel=0.1)
    assert (found.introduced > found.introduced_limit) == (verdict == "fault")
    if verdict == "explained":
        assert found.introduced_limit > 20
    else:
        assert judgement.first_wrong is found


@pytest.mark.parametrize("how", ["missing", "misshapen", "not finite"])
def test_what_cannot_be_computed_is_left_out(how: str) -> None:
    """What the operation behind an unusable tensor should have given is not known; those after it are judged."""
    right = Trace(plain())["blocks.1.norm2"]
    broken = {"missing": None, "misshapen": right[:, :1], "not finite": np.where(right > 2, np.nan, right)}[how]
    judgement = localised(Edited(plain(), {"blocks.1.norm2": broken}))
    assert to_blame(judgement) == []
    computed = {found.name for found in judgement.findings if found.introduced_limit}
    assert not {"blocks.1.norm2", "blocks.1.mlp.fc1", "grad/blocks.1.mlp.fc1.weight"} & computed
    assert {"blocks.1.residual", "blocks.1.mlp.gelu", "grad/blocks.1.norm2.weight", "dy/blocks.1.residual"} <= computed


def test_a_decision_out_of_range_does_not_stop_it() -> None:
    judgement = localised(Edited(plain(), {"ids_restore": Trace(plain())["ids_restore"] + 1000}))
    assert judgement.first_wrong is not None
    assert judgement.first_wrong.name == "ids_restore"
    assert finding(judgement, "blocks.0").introduced_limit > 0


def test_without_twins_there_is_no_limit() -> None:
    judgement = localised(Trace(plain()), twins=[])
    assert not any(found.introduced or found.introduced_limit for found in judgement.findings)
