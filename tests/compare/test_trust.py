"""What a verdict may not rest on: a twin that is wrong itself, too few digits, steps or levels, a fault in the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from perceptron import GRADIENTS, INPUTS, model, port
from runs import CONFIG, MODEL, Edited, inputs, judged, oracle, plain, recorded, report, twins

from polymae.backends.initial import initial_weights
from polymae.backends.spec import Tap, taps
from polymae.compare import OF_ONE_RUN, profile
from polymae.compare import Tap as OwnTap
from polymae.compare import parity as parity_of
from polymae.compare.judge.localise import localise
from polymae.compare.judge.traces import judge
from polymae.compare.limits.curves import judge_curve
from polymae.compare.limits.findings import Finding, Judgement
from polymae.compare.limits.floors import Floors
from polymae.compare.limits.metrics import U
from polymae.compare.limits.tensors import judge_tensor
from polymae.compare.limits.tolerance import APriori, null_limit, outliers
from polymae.compare.offline import compare_traces
from polymae.compare.options import Comparison
from polymae.compare.report.report import About, Report
from polymae.compare.trace import Trace
from polymae.files.errors import Problem

RNG = np.random.default_rng(0)
PRED = next(tap for tap in taps(CONFIG) if tap.name == "pred")
LOSS = Tap("curve/loss", "training")


def named(judgement: Judgement, name: str) -> Finding:
    return next(finding for finding in judgement.findings if finding.name == name)


def off(array: Any, size: float) -> Any:
    """With noise of this many roundoffs."""
    return array * (1 + size * U * RNG.standard_normal(array.shape))


def wrong_twin(size: float, *names: str) -> list[Trace]:
    """The twins, the second of them off in some tensors."""
    first, second = twins()
    return [Trace(first), Edited(second, {name: off(Trace(second)[name], size) for name in names})]


def among(found: list[Trace], candidate: Trace) -> Judgement:
    """A candidate, judged and localised with these twins."""
    given = {"candidate": candidate}
    judgements = judge(Trace(oracle()), found, given, (*OF_ONE_RUN, "gradients"))
    localise(judgements, given, found, CONFIG, initial_weights(CONFIG))
    return judgements[0]


# --taps


@pytest.mark.parametrize(("kept", "status"), [(("blocks.*", "pred"), 3), (("pred", "loss", "grad/*", "input/*"), 0)])
def test_a_level_of_which_nothing_was_compared_is_a_hole(kept: tuple[str, ...], status: int) -> None:
    part = recorded(f"taps {kept[0][:4]}", taps=kept)
    found = report(part)
    assert found.exit_status == status
    (judgement,) = found.judgements
    assert ("nothing of the level gradients was compared" in judgement.coverage) == (status == 3)
    assert report(part, levels=("forward",)).exit_status == 0  # what was left out of a level is a notice
    exact = recorded("oracle pred", dtype="float64", taps=("pred",))
    (judgement,) = compare_traces([exact, *twins(), plain()], Comparison(levels=("forward", "loss"))).judgements
    assert judgement.coverage == ["nothing of the level loss was compared"]


def test_weights_that_the_checkpoint_does_not_have_are_a_hole() -> None:
    weights = Trace(plain()).manifest["weights"] | {"blocks.0.extra": "0" * 64}
    judgement = judged(Edited(plain(), weights=weights))
    assert (judgement.verdict, judgement.coverage) == ("coverage hole", ["weights/blocks.0.extra is unknown"])
    assert judged(Edited(plain(), weights=weights), ("forward",)).verdict == "roundoff"


# Floors


def test_which_twins_are_beyond_the_others() -> None:
    assert outliers([3.0, 2.0, 238.0], 10**6, 15) == [2]
    assert outliers([2.0, 238.0], 10**6, 15) == [1]
    assert outliers([2.0, 14.0, 3.0], 10**6, 15) == []  # within the bound
    assert outliers([90.0, 95.0, 200.0], 10**6, 15) == []  # all of them: the inputs are such
    assert outliers([1.0, 20.0, 2.0], 1, 15) == []  # one number fluctuates
    assert outliers([], 1, 15) == outliers([1e9], 1, 15) == []
    assert null_limit(1000, [1.0, 2.0, 500.0]).value == null_limit(1000, [1.0, 2.0]).value


def test_a_wrong_twin_sets_no_limit() -> None:
    """A fault of 100 u beside a twin that is off by 238 u is a fault."""
    bad = wrong_twin(238, "pred", "blocks.1", "grad/norm.weight")
    wrong = Edited(plain(), {"pred": off(Trace(plain())["pred"], 100)})
    judgement = among(bad, wrong)
    found = named(judgement, "pred")
    assert (found.verdict, found.introduced > found.introduced_limit) == ("fault", True)
    assert found.limit < 30
    said = " ".join(judgement.notices)
    assert "twin2's blocks.1 is 23" in said
    assert (
        "beyond 3 sqrt(5) + 6 + 0.4 sqrt(192 / 2) = 16.6 and the other twins: it sets no limit; nor do 2 other tensors"
        in said
    )
    assert "off on its own inputs, far beyond the other twins'" in said
    right = among(bad, Trace(plain()))
    assert right.verdict == "roundoff"
    assert among([Trace(path) for path in twins()], Trace(plain())).notices == []


def test_a_floor_beyond_the_bound_is_noticed_and_no_failure() -> None:
    exact = RNG.standard_normal((40, 50))
    for size, said in ((90.0, "the float32 floor of pred is 9"), (3000.0, "only about the first 3 digits of pred")):
        floors = Floors(APriori(5))
        assert len(floors.fit("forward", PRED, exact, {f"twin{i}": off(exact, size) for i in range(3)})) == 3
        floors.fit("forward", taps(CONFIG)[0], exact, {"twin1": off(exact, 2)})
        (notice,) = floors.notices
        assert notice.startswith(said)
    floors = Floors(APriori(5))
    floors.fit("gradients", PRED, exact, {"twin1": off(exact, 90)})
    assert floors.notices == []


def test_a_floor_of_three_digits_judges_nothing() -> None:
    exact = RNG.standard_normal((40, 50))
    for size, verdict in ((5e3, "roundoff"), (2e4, "not comparable")):
        found = judge_tensor("forward", PRED, off(exact, size), exact, [off(exact, size)], APriori(5))
        assert found.verdict == verdict


def test_a_tensor_that_overflows_in_the_twins_leaves_the_others_judged() -> None:
    first, second = twins()
    infinite = np.full_like(Trace(first)["loss"], np.inf)
    found = [Edited(first, {"loss": infinite}), Edited(second, {"loss": infinite})]
    (judgement,) = judge(Trace(oracle()), found, {"candidate": Trace(plain())}, OF_ONE_RUN)
    loss = named(judgement, "loss")
    assert loss.verdict == "not comparable"
    assert "float32 overflows here in the twins (twin1, twin2)" in loss.reason
    assert "scale the inputs" in loss.reason
    assert named(judgement, "pred").verdict == "roundoff"
    assert Report(About("", "", "", "", 0.75), OF_ONE_RUN, [judgement]).exit_status == 2


def test_finite_inputs_that_overflow_are_judged_as_far_as_float32_goes(tmp_path: Path) -> None:
    with np.load(inputs()) as given:
        np.savez(tmp_path / "large.npz", **{**given, "imgs": given["imgs"] * np.float32(1e30)})
    fields: dict[str, Any] = {"inputs": tmp_path / "large.npz", "model": MODEL, "levels": (*OF_ONE_RUN, "gradients")}
    from polymae.compare.options import Run
    from polymae.compare.record.record import record

    paths = []
    for name, options in (("o", {"dtype": "float64"}), ("t", {"twin": 1}), ("c", {})):
        paths.append(tmp_path / f"{name}.npz")
        with np.errstate(all="ignore"):
            record(Run("numpy", paths[-1], **fields, **options))
    found = compare_traces(paths, Comparison(levels=fields["levels"], reference=None))
    (judgement,) = found.judgements
    assert found.exit_status == 2
    assert "scale the inputs" in named(judgement, "loss").reason
    assert named(judgement, "blocks.0").verdict == "roundoff"


def test_without_twins_a_reader_is_told_what_was_not_judged() -> None:
    (judgement,) = compare_traces([oracle(), plain()], Comparison(levels=("forward",))).judgements
    assert any("introduces by itself was not computed: that needs float32 twins" in said for said in judgement.notices)
    (judgement,) = compare_traces([oracle(), plain()], Comparison(levels=("weights",))).judgements
    assert judgement.notices == []


# Curves


@pytest.mark.parametrize(("steps", "size", "verdict"), [(1, 0, "not comparable"), (49, 0, "not comparable"),
                                                        (50, 0, "roundoff"), (1, 90, "fault")])  # fmt: skip
def test_a_curve_of_which_few_steps_can_be_judged(steps: int, size: float, verdict: str) -> None:
    exact = np.linspace(2, 1, 100)
    twin = exact * np.where(np.arange(100) < steps, 1 + U, 1.01)
    found = judge_curve(LOSS, exact * (1 + (size + 1) * U), exact, [twin])
    assert found.verdict == verdict
    assert f"from step {steps + 1} on float32 says nothing" in found.reason


def test_a_twin_with_another_curve_sets_no_limit() -> None:
    exact = np.linspace(2, 1, 100)
    given = {"twin1": exact * (1 + 2 * U), "twin2": exact * (1 + 300 * U), "twin3": exact * (1 - 3 * U)}
    floors = Floors(APriori(5))
    fit = floors.fit("curve", LOSS, exact, given)
    assert judge_curve(LOSS, exact * (1 + 100 * U), exact, fit).verdict == "fault"
    assert floors.notices == [
        "twin2's curve/loss is 300 u from the oracle, beyond 8 and the other twins: it sets no limit"
    ]


# Profile


def test_a_fault_in_one_call_is_not_remembered_as_a_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def calls(*sizes: float) -> list[Finding]:
        return [
            Finding(f"blocks.{i}.attn.softmax", "forward", "softmax", "fault", introduced=size, introduced_limit=4)
            for i, size in enumerate(sizes)
        ]

    assert profile.suspect(calls(9, 10, 11)) == profile.suspect(calls(1, 1, 3.5)) == profile.suspect([]) == ""
    assert profile.suspect(calls(1, 1, 40)).startswith("blocks.2.attn.softmax is 40 u off, its typical call 1")
    assert profile.suspect(calls(2, 3, 5)).startswith("only 1 of its 3 calls")
    monkeypatch.setattr(profile, "KERNELS", tmp_path / "kernels.json")
    (tmp_path / "kernels.json").write_text("[]")
    row = {"framework": "x", "version": "1", "device": "cpu", "operation": "gelu", "error": 8.0, "twin": 1.0}
    for bad in ({"suspect": "one call"}, {"error": 25.0}):
        with pytest.raises(Problem, match="a fault, not a kernel"):
            profile.remember([row | bad])
    profile.remember([row | {"suspect": ""}])
    assert "suspect" not in (tmp_path / "kernels.json").read_text()


# Own models


def test_a_model_is_not_its_own_reference_and_zeros_prove_nothing() -> None:
    class Net:
        def run(self, inputs: Any) -> dict[str, Any]:
            return dict(model(inputs))

    net = Net()
    for reference, candidate in ((model, model), (net.run, net.run)):
        with pytest.raises(Problem, match="is the reference itself"):
            parity_of(reference, candidate, INPUTS)
    assert parity_of(net.run, Net().run, INPUTS, gradients=GRADIENTS).ok

    def dead(given: Any) -> dict[str, Any]:
        return {**port(given), "dead": np.zeros_like(given["x"])}

    found = parity_of(dead, lambda given: dead(given), INPUTS, gradients=GRADIENTS)
    assert found.ok
    assert "dead: zero everywhere on both sides, which proves nothing" in str(found)
    assert "proves nothing" not in str(parity_of(model, port, INPUTS, [OwnTap("hidden", "linear")], gradients=["loss"]))
