"""How a fault is put into a backend, and taken out again; how many runs are recorded in one process."""

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from mutants import FAULTS, plant
from mutants.harness import PROGRAM
from mutants.models import MODELS, trained_weights, write_subject
from mutants.planting import in_each
from mutants.recording import Mutant

from polymae.backends.denormals import denormals
from polymae.backends.initial import initial_weights
from polymae.backends.presets import model_config
from polymae.backends.runtime import load_backend
from polymae.compare.record import child as worker
from polymae.compare.record.child import record_batch
from polymae.compare.record.inputs import random_inputs
from polymae.compare.record.patience import Patience
from polymae.files.errors import Problem

CONFIG = model_config(MODELS[0])


def taps() -> dict[str, np.ndarray]:
    runtime = load_backend("numpy")
    model = runtime.build(CONFIG, initial_weights(CONFIG))
    return runtime.run(model, random_inputs(CONFIG)).taps


def test_a_fault_is_there_for_the_time_of_the_context() -> None:
    before = taps()
    with plant("quick gelu", "numpy", CONFIG):
        during = taps()
    after = taps()
    assert not np.array_equal(before["pred"], during["pred"])
    assert np.array_equal(before["pred"], after["pred"])


def test_a_fault_is_taken_out_where_a_run_fails() -> None:
    before = taps()
    with pytest.raises(KeyError), plant("gelu missing", "numpy", CONFIG):
        raise KeyError
    assert np.array_equal(before["pred"], taps()["pred"])


def test_denormal_numbers_come_back() -> None:
    with plant("denormal numbers flushed", "numpy", CONFIG):
        assert denormals() == "flushed"
    assert denormals() == "kept"


def test_every_weight_of_a_subject_shows_a_fault() -> None:
    for model in MODELS:
        config = model_config(model)
        for name, array in trained_weights(config).items():
            assert array.dtype == np.float32
            assert not np.any(array == 0), name
            assert not np.any(array == 1), name
            assert np.unique(array).size == array.size or array.size > 1000, name


def test_an_unknown_fault_offers_the_nearest() -> None:
    with pytest.raises(Problem, match="tanh gelu"), plant("tanh glu", "numpy", CONFIG):
        pass
    with pytest.raises(Problem, match="make power` lists all") as told, plant("zzz", "numpy", CONFIG):
        pass
    assert 1 < sum(name in str(told.value) for name in FAULTS) < 6


def test_an_edit_that_no_longer_fits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    stale = replace(FAULTS["tanh gelu"], edits=in_each("blocks", numpy=("no such line", "")))
    monkeypatch.setitem(FAULTS, "tanh gelu", stale)
    with pytest.raises(Problem, match="up to date"), plant("tanh gelu", "numpy", CONFIG):
        pass
    with pytest.raises(Problem, match="in numpy, not in torch"), plant("tanh gelu", "torch", CONFIG):
        pass


@pytest.mark.parametrize("model", ["libai_mae_vit_test_patch8", "mae_vit_test_patch8"])
def test_a_fault_that_makes_no_difference_in_a_model_is_refused(model: str) -> None:
    fault = "pixels of a conv head channel first"
    with pytest.raises(Problem, match="head=conv, which this model"), plant(fault, "numpy", model_config(model)):
        pass


def runs(folder: Path, count: int) -> list[Mutant]:
    weights, inputs = write_subject(folder, MODELS[0])
    common = {"inputs": inputs, "weights": weights, "model": MODELS[0], "levels": ("forward",)}
    return [Mutant("numpy", folder / f"{i}.npz", **common) for i in range(count)]


def test_a_run_that_cannot_be_recorded_is_a_row(tmp_path: Path) -> None:
    first, second, third = runs(tmp_path, 3)
    found = record_batch([first, replace(second, fault="no such fault"), third], program=PROGRAM)
    assert [bool(outcome.trace) for outcome in found] == [True, False, True]
    assert "Unknown fault" in found[1].reason
    assert not second.out.exists()


# A worker that stops at its second run: it has written the first one's trace, and said so.
STOPS = f"""#!{sys.executable}
import json, os, sys, time
runs = json.load(sys.stdin)
for i, run in enumerate(runs):
    if run["seed"]:
        {{how}}
    open(run["out"], "w").close()
    print('""', flush=True)
"""


def python(folder: Path, how: str) -> str:
    path = folder / "python"
    path.write_text(STOPS.replace("{how}", how))
    path.chmod(0o755)
    return str(path)


def test_a_run_at_which_the_process_dies_is_a_row(tmp_path: Path) -> None:
    first, second, third = runs(tmp_path, 3)
    found = record_batch([first, replace(second, seed=1), third], python(tmp_path, "os.kill(os.getpid(), 11)"))
    assert [bool(outcome.trace) for outcome in found] == [True, False, True]
    assert "SIGSEGV" in found[1].reason


def test_the_last_words_at_a_run_are_kept(tmp_path: Path) -> None:
    first, second, third = runs(tmp_path, 3)
    how = "print('not a line of ours'); print('{}'); sys.exit('Killed by the cat')"
    found = record_batch([first, replace(second, seed=1), third], python(tmp_path, how))
    assert [bool(outcome.trace) for outcome in found] == [True, False, True]
    assert found[1].reason == "Killed by the cat (exit status 1)"


def test_an_interpreter_without_polymae_is_started_once(tmp_path: Path) -> None:
    (tmp_path / "python").write_text(f"""#!/bin/sh
echo >>{tmp_path}/starts
echo hello
echo "python: No module named 'polymae'" >&2
exit 1
""")
    (tmp_path / "python").chmod(0o755)
    found = record_batch(runs(tmp_path, 3), str(tmp_path / "python"))
    assert all("has no polymae" in outcome.reason for outcome in found)
    assert len((tmp_path / "starts").read_text()) == 1


def test_what_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "Patience", partial(Patience, silence=2))
    first, second, third = runs(tmp_path, 3)
    found = record_batch([first, replace(second, seed=1), third], python(tmp_path, "time.sleep(100_000)"))
    assert [bool(outcome.trace) for outcome in found] == [True, False, False]
    assert all("did nothing for 2 s" in outcome.reason for outcome in found[1:])


def test_an_interpreter_that_is_not_there_is_a_row(tmp_path: Path) -> None:
    found = record_batch(runs(tmp_path, 2), str(tmp_path / "nothing"))
    assert all("does not start" in outcome.reason for outcome in found)


def test_a_run_survives_the_way_to_the_worker(tmp_path: Path) -> None:
    (run,) = runs(tmp_path, 1)
    run = replace(run, images=(tmp_path / "a.jpg",), taps=("blocks.*",), twin=2)
    assert Mutant.from_dict(json.loads(json.dumps(run.as_dict()))) == run
