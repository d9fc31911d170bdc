"""The judge: what is right passes, what is wrong fails, and what cannot be compared never passes."""

from typing import Any

import numpy as np
import pytest
from runs import CONFIG, Edited, changed, judged, oracle, plain, recorded

from polymae.backends.spec import params
from polymae.compare import OF_ONE_RUN
from polymae.compare.levels import expected
from polymae.compare.limits.findings import Finding, Judgement, Verdict
from polymae.compare.limits.metrics import U, error
from polymae.compare.report.report import About, Report
from polymae.compare.trace import Trace

ABOUT = About("model", "weights", "hash", "inputs", 0.75)
BIAS = "grad/blocks.1.attn.qkv.bias"
KEY = slice(CONFIG.embed_dim, 2 * CONFIG.embed_dim)  # its middle third, zero in exact arithmetic


def finding(judgement: Judgement, name: str) -> Finding:
    return next(found for found in judgement.findings if found.name == name)


def put(place: Any, value: float) -> Any:
    """An edit of one element."""

    def edit(array: Any) -> None:
        array[place] = value

    return edit


def status(*judgements: Judgement) -> int:
    return Report(ABOUT, ("forward",), list(judgements)).exit_status


def test_a_correct_run_passes_in_full() -> None:
    judgement = judged(Trace(plain()))
    assert judgement.verdict == "roundoff"
    assert judgement.first_wrong is None
    assert not judgement.coverage
    assert status(judgement) == 0
    listed = [found.name for found in judgement.findings]
    assert listed[: len(params(CONFIG))] == [f"weights/{param.name}" for param in params(CONFIG)]
    assert listed[-1] == "grad/pos_embed"  # the backward pass ends where the forward begins
    assert listed[len(params(CONFIG)) :] == [tap.name for _, tap in expected(CONFIG, Trace(plain()).levels)]
    assert all(0 <= found.ratio <= 1 for found in judgement.findings)
    assert finding(judgement, "pred").error > 0


def test_the_oracle_itself_is_exact() -> None:
    judgement = judged(Trace(oracle()))
    assert judgement.verdict == "exact"
    assert {found.error for found in judgement.findings} == {0.0}


def test_the_error_is_in_units_of_roundoff() -> None:
    exact = Trace(oracle())
    found = finding(judged(Edited(plain(), {"blocks.1": exact["blocks.1"] * (1 + 100 * U)})), "blocks.1")
    assert found.error == pytest.approx(100)
    assert np.finfo(np.float32).eps / 2 == U
    assert found.coherence == pytest.approx(1)
    assert found.worst_row_error == pytest.approx(100, rel=0.5)
    assert found.verdict == "fault"
    noise = np.random.default_rng(0).standard_normal(exact["blocks.1"].shape)
    found = finding(judged(Edited(plain(), {"blocks.1": exact["blocks.1"] * (1 + 100 * U * noise)})), "blocks.1")
    assert found.error == pytest.approx(100, rel=0.1)
    assert found.coherence < 0.1


def test_the_worst_row_is_named() -> None:
    def edit(array: Any) -> None:
        array[1, 3] *= 1 + 1e-3

    found = finding(changed("blocks.1", edit), "blocks.1")
    assert found.worst_row == (1, 3)
    assert found.worst_row_error == pytest.approx(1e-3 / U, rel=0.5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_number_that_is_not_finite(value: float) -> None:
    judgement = changed("blocks.0.mlp.gelu", put((0, 1, 2), value))
    (found,) = [found for found in judgement.findings if found.verdict == "not comparable"]
    assert (found.name, status(judgement)) == ("blocks.0.mlp.gelu", 2)
    assert found.reason.startswith("1 of 1920 elements are NaN")


@pytest.mark.parametrize("name", ["mask", "ids_restore", "input/imgs", "input/noise"])
def test_what_must_be_equal_is_wrong_however_little_it_differs(name: str) -> None:
    def nudge(array: Any) -> None:
        array.flat[5] = (
            array.flat[5] + 1 if array.dtype.kind == "i" else np.nextafter(array.flat[5], array.dtype.type(2))
        )

    judgement = changed(name, nudge)
    assert judgement.verdict == "fault"
    assert judgement.first_wrong is not None
    assert judgement.first_wrong.name == name
    assert judgement.first_wrong.error == 1


@pytest.mark.parametrize("name", ["blocks.1.attn.softmax", "mask", "norm_pix.loss", "grad/norm.bias", "input/noise"])
def test_a_missing_tensor_is_a_hole(name: str) -> None:
    judgement = judged(Edited(plain(), {name: None}))
    assert (judgement.verdict, judgement.coverage) == ("coverage hole", [f"{name} is missing"])
    assert status(judgement) == 3


@pytest.mark.parametrize("name", ["blocks.7.attn.softmax", "grad/blocks.7.norm1.bias", "input/labels"])
def test_an_unknown_tensor_is_a_hole(name: str) -> None:
    judgement = judged(Edited(plain(), {name: np.zeros(3)}))
    assert (judgement.verdict, judgement.coverage) == ("coverage hole", [f"{name} is unknown"])
    assert status(judgement) == 3


def test_a_renamed_tensor_is_two_holes() -> None:
    judgement = judged(Edited(plain(), {"latent": None, "latents": Trace(plain())["latent"]}))
    assert judgement.coverage == ["latent is missing", "latents is unknown"]


def test_a_hole_outside_the_chosen_levels_does_not_matter() -> None:
    candidate = Edited(plain(), {"grad/norm.bias": None})
    assert judged(candidate, ("forward", "loss")).verdict == "roundoff"


def test_nothing_to_compare_is_no_success() -> None:
    assert status() == 2
    nothing = judged(Trace(plain()), ())
    assert (nothing.verdict, status(nothing)) == ("not comparable", 2)
    empty = judged(Edited(plain(), dict.fromkeys(Trace(plain()).names)), ("forward",))
    assert empty.findings == []
    assert status(empty) == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("config", {**Trace(plain()).manifest["config"], "depth": 4}),
        ("mask_ratio", 0.5),
        ("source", "0" * 64),
        ("inputs", {**Trace(plain()).manifest["inputs"], "noise": "0" * 64}),
    ],
)
def test_another_run_is_not_comparable(field: str, value: object) -> None:
    judgement = judged(Edited(plain(), **{field: value}))
    assert judgement.verdict == "not comparable"
    assert judgement.problem.startswith(f"{field} differs")
    assert not judgement.findings
    assert status(judgement) == 2


def test_a_trace_older_than_a_setting_has_its_default() -> None:
    settings = Trace(plain()).manifest["config"]
    older = {name: value for name, value in settings.items() if name not in ("head", "positions", "block_norm_eps")}
    assert judged(Edited(plain(), config=older)).verdict == "roundoff"
    other = judged(Edited(plain(), config={**older, "positions": "1d"})).problem
    assert "({'positions': '1d'}, not {'positions': '2d'})" in other


def test_runs_that_really_differ_are_not_comparable() -> None:
    for field, run in (
        ("source", recorded("other seed", seed=1)),
        ("mask_ratio", recorded("other ratio", mask_ratio=0.5)),
        ("config", recorded("other loss", norm_pix_loss=True)),
    ):
        assert judged(Trace(run)).problem.startswith(f"{field} differs"), field


def test_without_gradients_or_in_bfloat16_is_not_comparable() -> None:
    without = Trace(recorded("forward", levels=OF_ONE_RUN))
    assert "--level weights,inputs,forward,loss,gradients" in judged(without).problem
    assert status(judged(without)) == 2
    assert "bfloat16" in judged(Edited(plain(), dtype="bfloat16")).problem


def test_other_weights_in_the_model_are_a_fault() -> None:
    weights = Trace(plain()).manifest["weights"]
    for wrong in (
        {**weights, "blocks.0.norm1.bias": "0" * 64},
        {k: v for k, v in weights.items() if "0.norm1.b" not in k},
    ):
        judgement = judged(Edited(plain(), weights=wrong))
        assert judgement.first_wrong is not None
        assert judgement.first_wrong.name == "weights/blocks.0.norm1.bias"
        assert status(judgement) == 1


@pytest.mark.parametrize("name", ["pred", "loss", "grad/cls_token", "mask"])
def test_another_shape_is_not_comparable(name: str) -> None:
    judgement = changed(name, lambda array: array[None])
    (found,) = [found for found in judgement.findings if found.verdict == "not comparable"]
    assert (found.name, status(judgement)) == (name, 2)
    assert found.reason.startswith("shape (1,")


def test_the_first_wrong_is_the_first_that_was_computed() -> None:
    forward = ["decoder_blocks.0.attn.softmax", "blocks.2.mlp.fc1", "pred", "blocks.2"]
    backward = ["grad/blocks.0.norm1.weight", "grad/decoder_pred.weight", "grad/decoder_blocks.1.mlp.fc2.weight"]
    wrong = {name: Trace(plain())[name] * np.float32(1.5) for name in (*forward, *backward)}
    first = judged(Edited(plain(), wrong)).first_wrong
    assert first is not None
    assert first.name == "blocks.2.mlp.fc1"
    first = judged(Edited(plain(), {name: wrong[name] for name in backward})).first_wrong
    assert first is not None
    assert first.name == "grad/decoder_pred.weight"
    weights = Trace(plain()).manifest["weights"] | {"norm.bias": "0" * 64}
    first = judged(Edited(plain(), {"blocks.2": wrong["blocks.2"]}, weights=weights)).first_wrong
    assert first is not None
    assert first.name == "weights/norm.bias"  # what was loaded wrong says more than where it shows


def test_a_gradient_that_is_zero_in_exact_arithmetic_is_judged_by_its_size() -> None:
    exact, actual = Trace(oracle())[BIAS], Trace(plain())[BIAS]
    siblings = float(np.sqrt(np.mean(np.delete(exact, np.r_[KEY]) ** 2)))
    assert np.abs(exact[KEY]).max() < 1e-12 * siblings
    assert error(actual[KEY], exact[KEY]) * U > 1000  # meaningless as a relative error
    assert finding(judged(Trace(plain())), BIAS).verdict == "roundoff"
    for size, verdict in ((5.0, "roundoff"), (40.0, "fault"), (1e-3 / U, "fault")):
        found = finding(changed(BIAS, put(KEY, size * U * siblings)), BIAS)
        assert found.verdict == verdict, size
        assert ("zero in exact arithmetic" in found.reason) == (verdict == "fault")
    found = finding(changed(BIAS, put(0, 1.0)), BIAS)  # and its siblings are judged as ever
    assert (found.verdict, "kappa" in found.reason) == ("fault", True)


def test_the_floor_is_a_priori_without_twins() -> None:
    judgement = judged(Trace(plain()), a_priori=True)
    assert judgement.verdict == "roundoff"
    assert finding(judgement, "pred").floor == pytest.approx(3 * np.sqrt(3 + 2) + 6 + 0.4 * np.sqrt(192 / 2))
    assert "a priori: 3 sqrt(5) + 6" in finding(judgement, "pred").reason
    assert "worst of 2 twins" in finding(judged(Trace(plain())), "pred").reason


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ("exact roundoff explained", 0),
        ("roundoff hole", 3),
        ("hole problem roundoff", 2),
        ("problem fault hole", 1),
        ("fault exact", 1),
    ],
)
def test_the_worst_verdict_is_the_exit_status(verdicts: str, expected: int) -> None:
    def verdict(name: Verdict, **more: Any) -> Judgement:
        return Judgement(name, [Finding("pred", "forward", "linear", name)], **more)

    kinds = {
        "exact": verdict("exact"),
        "roundoff": verdict("roundoff"),
        "explained": verdict("explained"),
        "fault": verdict("fault", coverage=["pred is missing"]),
        "hole": verdict("roundoff", coverage=["pred is missing"]),
        "problem": Judgement("problem", problem="killed", coverage=["pred is missing"]),
    }
    assert status(*(kinds[name] for name in verdicts.split())) == expected
    assert Judgement("both", kinds["fault"].findings, "damaged").verdict == "fault"
