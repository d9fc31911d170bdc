"""Every planted porting fault is noticed in every framework, by far and at its place; a correct run is not blamed.

The bench records the oracle once, and each framework in one process: importing one costs more than its runs.
"""

from collections.abc import Callable, Iterator

import pytest
from frameworks import frameworks_under_test
from mutants import FAULTS
from mutants.harness import Bench
from mutants.models import MODELS, model_of_fault
from mutants.power import Power, Row, powers

from polymae.backends.installing import installed
from polymae.backends.presets import model_config
from polymae.compare.report.power import ENOUGH

Found = Callable[[str], Power]
# What `make power` does in full: gradients behind a fault of the forward pass cost as much as the pass, and a step of training
# more than the whole run. Two frameworks have the gradients; faults of the gradients are planted in all.
SHORT = ("megengine", "mindspore", "oneflow")
STEPS = 25  # two and a half epochs


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    """A function that gives what every fault did in a framework; they are recorded as the first one is asked for."""
    frameworks = [name for name in frameworks_under_test() if installed(name)]
    with Bench(tmp_path_factory.mktemp("bench"), short=SHORT, steps=STEPS) as bench:
        coming = powers(bench, frameworks)
        known: dict[str, Power] = {}

        def of(framework: str) -> Power:
            while framework not in known:
                known[frameworks[len(known)]] = next(coming)
            return known[framework]

        yield of
        coming.close()


def row(found: Power, fault: str) -> Row:
    (only,) = [row for row in found.rows if row.name == fault]
    return only


@pytest.mark.parametrize("fault", FAULTS)
def test_the_fault_is_noticed_where_it_is(framework: str, fault: str, found: Found) -> None:
    if framework not in FAULTS[fault].frameworks:
        assert fault not in [row.name for row in found(framework).rows]
        return
    seen = row(found(framework), fault)
    assert not seen.problem
    assert seen.located_at == FAULTS[fault].located_at
    assert seen.margin >= ENOUGH


def test_without_a_fault_there_is_none(framework: str, found: Found) -> None:
    correct = found(framework).correct
    assert [model for _, model, _ in correct] == list(MODELS)
    for _, _, judgement in correct:
        assert judgement.verdict in ("roundoff", "explained"), judgement.first_wrong
        assert not judgement.coverage
    assert not found(framework).false_alarms


def test_a_fault_of_the_weights_is_named_by_its_tensor(framework: str, found: Found) -> None:
    seen = row(found(framework), "q and k swapped")
    assert seen.level == "weights"
    assert seen.margins["forward"] > 1000  # it is a fault of the outputs as well


def test_there_are_enough_of_every_kind() -> None:
    assert len(FAULTS) >= 36
    assert {fault.level for fault in FAULTS.values()} == {
        "environment", "weights", "inputs", "forward", "loss", "gradients", "optimizer", "curve",
    }  # fmt: skip
    assert all(len(fault.frameworks) == 5 for fault in FAULTS.values())
    assert all(fault.about.endswith(".") for fault in FAULTS.values())
    assert all(FAULTS[name].fits(model_config(model_of_fault(name))) for name in FAULTS)
