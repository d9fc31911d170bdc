"""The masking and the loss alone: five frameworks agree on them, and every fault of theirs shows with a margin."""

from __future__ import annotations

import inspect
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from children import run_in

from polymae.backends import FRAMEWORKS
from polymae.backends.numpy import model as numpy_model
from polymae.backends.numpy.sums import summed_in_chains
from polymae.backends.presets import model_config
from polymae.backends.runtime import load_backend
from polymae.compare.levels.loss import FAINT, MASK_RATIOS, injected_arrays, injected_losses, injected_taps, mask_of
from polymae.compare.limits.findings import Finding
from polymae.compare.limits.tensors import judge_tensor
from polymae.compare.limits.tolerance import APriori

MODELS = ("mae_vit_test_patch8", "flyegle_mae_vit_test_patch8", "vit_test_patch8")
WRONG = ("fault", "not comparable")  # another shape or NaN is not even comparable
SCRIPT = """
import numpy as np
from polymae.backends.presets import model_config
from polymae.backends.runtime import load_backend
from polymae.compare.levels.loss import injected_losses
runtime = load_backend({framework!r})
runtime.setup("cpu", 1)
for name in {models!r}:
    np.savez({folder!r} + "/" + name, **dict(injected_losses(runtime, runtime.build(model_config(name)))))
"""


def by_numpy(name: str, dtype: str = "float32") -> dict[str, Any]:
    runtime = load_backend("numpy")
    return dict(injected_losses(runtime, runtime.build(model_config(name), None, "cpu", dtype)))


@cache
def right(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The oracle's and three twins' tensors."""
    twins = []
    for seed in (1, 2, 3):
        with summed_in_chains(seed):
            twins.append(by_numpy(name))
    return by_numpy(name, "float64"), twins


def judged(name: str, found: dict[str, Any]) -> dict[str, Finding]:
    oracle, twins = right(name)
    return {
        tap.name: judge_tensor(
            "loss", tap, found[tap.name], oracle[tap.name], [twin[tap.name] for twin in twins], APriori(5)
        )
        for tap in injected_taps(model_config(name))
    }


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_frameworks_agree_with_the_oracle(framework: str, tmp_path: Path) -> None:
    run_in(framework, SCRIPT.format(framework=framework, models=MODELS, folder=str(tmp_path)))
    for name in MODELS:
        with np.load(tmp_path / f"{name}.npz") as found:
            assert list(found) == [tap.name for tap in injected_taps(model_config(name))]
            findings = judged(name, dict(found))
        wrong = [(finding.name, finding.ratio) for finding in findings.values() if finding.verdict == "fault"]
        assert not wrong
        for tap, finding in findings.items():  # to move values is no arithmetic
            assert finding.verdict == "exact" or not tap.endswith(("mask", "kept", "pixel.target"))


MEAN_OF_REMOVED = "(loss * mask).sum() / mask.sum()"
RESTORE = 'out["ids_restore"] = np.argsort(ids_shuffle, axis=1)'
TARGET, LOSS = ("norm_pix.target", "norm_pix.loss"), ("pixel.loss", "norm_pix.loss")
ORDER = ("ids_restore", "kept", "mask")
# A method of the NumPy model, what is changed in it, and the tensors of which every one must show it.
FAULTS = {
    "ddof 0": ("forward_loss", "unbiased_variance(target)", "target.var(axis=-1, keepdims=True)", TARGET),
    "no eps": ("forward_loss", "(var + 1e-6) ** 0.5", "var**0.5", TARGET),
    "eps 1e-5": ("forward_loss", "1e-6", "1e-5", TARGET),
    "eps 1.001e-6": ("forward_loss", "1e-6", "1.001e-6", TARGET[:1]),
    "eps outside the root": ("forward_loss", "(var + 1e-6) ** 0.5", "(var**0.5 + 1e-6)", TARGET),
    "mean of all": ("forward_loss", MEAN_OF_REMOVED, "loss.mean()", LOSS),
    "mean of kept": ("forward_loss", MEAN_OF_REMOVED, "(loss * (1 - mask)).sum() / (1 - mask).sum()", LOSS),
    "over all": ("forward_loss", MEAN_OF_REMOVED, "(loss * mask).mean()", LOSS),
    "sum of removed": ("forward_loss", MEAN_OF_REMOVED, "(loss * mask).sum()", LOSS),
    "sum of pixels": ("forward_loss", ".mean(axis=-1)", ".sum(axis=-1)", LOSS),
    "absolute": ("forward_loss", "((pred - target) ** 2)", "abs(pred - target)", LOSS),
    "channel first": ("patchify", "0, 2, 4, 3, 5, 1", "0, 2, 4, 1, 3, 5", ("pixel.target", *TARGET, *LOSS)),
    "columns first": ("patchify", "0, 2, 4, 3, 5, 1", "0, 4, 2, 3, 5, 1", ("pixel.target", *TARGET, *LOSS)),
    "largest kept": ("random_masking", "np.argsort(noise,", "np.argsort(-noise,", ORDER),
    "polarity": ("random_masking", ">= K", "< K", ("mask",)),
    "not restored": ("random_masking", RESTORE, 'out["ids_restore"] = ids_shuffle', ("ids_restore", "mask")),
    "kept by restore": ("random_masking", "ids_shuffle[:, :K]", "ids_restore[:, :K]", ("kept",)),
    "same for all": ("random_masking", "np.argsort(noise,", "np.argsort(noise[:1] + 0 * noise,", ORDER),
}


def edited(function: Any, old: str, new: str) -> Any:
    """A function of the NumPy model with something else in its source."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1
    names = dict(vars(numpy_model))
    exec(source.replace(old, new), names)
    return names[function.__name__]


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_shows_at_every_ratio(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method, old, new, where = FAULTS[fault]
    right(MODELS[0])  # before anything is changed
    monkeypatch.setattr(numpy_model.MAE, method, edited(getattr(numpy_model.MAE, method), old, new))
    findings = judged(MODELS[0], by_numpy(MODELS[0]))
    seen = {name for name, finding in findings.items() if finding.verdict in WRONG}
    of_masking = {name for name in findings if name.endswith(ORDER)}
    assert seen <= of_masking if method == "random_masking" else not seen & of_masking
    for ratio in MASK_RATIOS:
        for name in where:
            finding = findings[f"injected/{ratio}/{name}"]
            assert finding.verdict in WRONG, finding
            assert finding.name in of_masking or finding.error == np.inf or finding.ratio >= 2, finding


@pytest.mark.parametrize(
    ("length", "ratios"),
    [
        ("round(L * (1 - mask_ratio))", (0.9,)),
        ("L - int(L * mask_ratio)", (0.9,)),
        ("int(L * mask_ratio)", (0.75, 0.9)),
    ],
)
def test_another_number_of_kept_patches_shows(
    length: str, ratios: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = edited(numpy_model.MAE.random_masking, "keep_length(L, mask_ratio)", length)
    right(MODELS[0])
    monkeypatch.setattr(numpy_model.MAE, "random_masking", changed)
    findings = judged(MODELS[0], by_numpy(MODELS[0]))
    wrong = {name for name, finding in findings.items() if finding.verdict in WRONG}
    assert wrong == {f"injected/{ratio}/{name}" for ratio in ratios for name in ("kept", "mask")}


@pytest.mark.filterwarnings("ignore:(overflow|divide|invalid):RuntimeWarning")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("log_softmax(logits)[", "np.log(np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True))["),
        ("].mean()", "].sum()"),
        ("targets].mean", "targets - 1].mean"),
        ("-log_softmax(logits)[np.arange(len(targets)), targets].mean()",
         "-0.999 * log_softmax(logits)[np.arange(len(targets)), targets].mean() - 0.001 * log_softmax(logits).mean()"),
    ],
    ids=["unstable", "sum", "next class", "smoothing"],
)  # fmt: skip
def test_a_fault_of_the_classifiers_loss_shows(old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right(MODELS[2])
    monkeypatch.setattr(numpy_model.ViT, "forward_loss", edited(numpy_model.ViT.forward_loss, old, new))
    finding = judged(MODELS[2], by_numpy(MODELS[2]))["injected/loss"]
    assert finding.verdict in WRONG
    assert finding.error == np.inf or finding.ratio >= 2


@pytest.mark.parametrize(("img_size", "count"), [(8, 0), (16, 2), ([8, 16], 1), ([8, 80], 2), ([8, 88], 3)])
def test_models_of_few_patches_leave_ratios_out(img_size: Any, count: int) -> None:
    size = tuple(img_size) if isinstance(img_size, list) else (img_size, img_size)
    config = model_config(MODELS[0], img_size=size)
    runtime = load_backend("numpy")
    found = dict(injected_losses(runtime, runtime.build(config)))
    assert list(found) == [tap.name for tap in injected_taps(config)]
    assert len({name.split("/")[1] for name in found}) == count
    assert all(np.isfinite(array).all() for array in found.values())


@pytest.mark.parametrize(
    "settings", [{}, {"patch_size": 1, "img_size": (4, 4)}, {"in_chans": 1}, {"masking": "raster"}]
)
def test_what_is_injected_is_exact_and_holds_the_hard_cases(settings: dict[str, Any]) -> None:
    config = model_config(MODELS[0], **settings)
    given = injected_arrays(config)
    p = config.patch_size
    faint, constant = given["imgs"][0, :, :p, :p], given["imgs"][0, :, -p:, -p:]
    assert faint.sum() == 0
    assert set(np.unique(np.abs(faint))) in ({np.float32(FAINT)}, {np.float32(0), np.float32(FAINT)})
    assert not constant.any()
    assert len(np.unique(given["noise"][0])) == config.num_patches
    for name in ("imgs", "pred"):
        assert given[name].dtype == np.float32
        assert (given[name] * 2.0**22 == np.round(given[name] * 2.0**22)).all()
        assert 1.1 < given[name].std() < 1.2
    if config.masking == "raster":
        mask = mask_of(given["noise"], 0.75, config)
        assert (mask[0] == mask[1]).all()


def test_the_model_keeps_its_own_loss() -> None:
    runtime = load_backend("numpy")
    model = runtime.build(model_config(MODELS[0], norm_pix_loss=True))
    runs = injected_losses(runtime, model)
    for _ in runs:
        assert model.norm_pix_loss is True
    with pytest.raises(AttributeError):
        next(injected_losses(runtime, object()))
