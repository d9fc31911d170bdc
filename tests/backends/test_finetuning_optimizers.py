"""Layer decay, LARS and the average of weights: the NumPy oracle against the official laws, every framework against it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from children import run_in
from numpy.typing import NDArray

from polymae.backends.averaging import Averaged, Averaging, changed
from polymae.backends.config import ConfigError, ViTConfig
from polymae.backends.initial import initial_weights
from polymae.backends.optimization import FINETUNING, PROBING, Settings, State, decay_of, groups_of, rates_of, trainable
from polymae.backends.presets import model_config
from polymae.backends.runtime import load_backend

CLASSIFIER = "img_size=16,patch_size=8,embed_dim=12,depth=2,num_heads=3,num_classes=5"
PROBE = f"{CLASSIFIER},head_norm=True,train_encoder=False"


def config_of(model: str) -> ViTConfig:
    config = model_config(model)
    assert isinstance(config, ViTConfig)
    return config


def test_layer_decay_is_the_official_law() -> None:
    """util/lr_decay.py: the tokens and patch_embed are layer 0 of depth + 1, whose rate is decay ** (depth + 1)."""
    rates = rates_of(config_of(CLASSIFIER), replace(FINETUNING, layer_decay=0.5))
    first = {"cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert {name for name, rate in rates.items() if rate == 0.125} == first
    assert {rate for name, rate in rates.items() if name.startswith("blocks.0.")} == {0.25}
    assert {rate for name, rate in rates.items() if name.startswith("blocks.1.")} == {0.5}
    assert {name for name, rate in rates.items() if rate == 1} == {
        "fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias",
    }  # fmt: skip
    assert set(rates_of(config_of(CLASSIFIER), Settings()).values()) == {1.0}


def test_fine_tuning_spares_the_tokens_by_name() -> None:
    config = config_of(CLASSIFIER)
    usual, spared = decay_of(config, Settings()), decay_of(config, FINETUNING)
    assert {name for name in usual if usual[name] != spared[name]} == {"cls_token", "pos_embed"}
    assert spared["cls_token"] == spared["pos_embed"] == 0


MATRICES = {"cls_token", "pos_embed", "head.weight", "patch_embed.proj.weight"} | {
    f"blocks.{block}.{name}.weight" for block in (0, 1) for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
}
# By hand: the parameters that decay. mindformers' program goes through them in order (class token, table, patches' matrix,
# patches' bias, ...) and gives every group made from the first one without decay on none.
MISTAKES = {
    "official": (Settings(layer_decay=0.5), MATRICES),
    "all": (Settings(decayed="all"), None),
    "first_groups": (
        Settings(layer_decay=0.5, decayed="first_groups"), {"cls_token", "pos_embed", "patch_embed.proj.weight"}
    ),
    "first_groups, one rate": (Settings(decayed="first_groups"), MATRICES),
    "first_groups, no tokens": (replace(FINETUNING, decayed="first_groups"), set()),
}  # fmt: skip


@pytest.mark.parametrize("kind", MISTAKES)
def test_known_mistakes_of_decay(kind: str) -> None:
    settings, decays = MISTAKES[kind]
    config = config_of(CLASSIFIER)
    found = decay_of(config, settings)
    everything = {param.name for param in trainable(config)}
    assert set(found) == everything
    assert {name for name, decay in found.items() if decay} == (everything if decays is None else decays)
    assert set(found.values()) <= {0.0, 0.05}
    groups = groups_of(config, settings)
    assert {name: group.decay for group in groups for name in group.names} == found


DECAY = """
import numpy as np
from polymae.backends.initial import initial_weights
from polymae.backends.optimization import FINETUNING, Settings
from polymae.backends.presets import model_config
from polymae.backends.runtime import load_backend
runtime = load_backend("{framework}")
runtime.setup()
config = model_config("{classifier}")
for number, settings in enumerate(({settings})):
    weights = {{name: array + np.float32(1) for name, array in initial_weights(config).items()}}
    model = runtime.build(config, weights)
    optimizer = runtime.optimizer(model, settings)
    zeros = {{name: np.zeros(array.shape, np.float32) for name, array in weights.items() if name in optimizer.decay}}
    optimizer.step(optimizer.tensors(zeros), 0.5)
    after = runtime.weights(model)
    np.savez(f"{path}{{number}}.npz", **{{name: after[name] / weights[name] for name in zeros}})
"""


def test_every_framework_decays_by_the_mistakes(framework: str, tmp_path: Path) -> None:
    """Where gradients are 0, a step of AdamW makes a parameter 1 - rate x decay times itself."""
    kinds = ("all", "first_groups")
    texts = 'Settings(decayed="all"), Settings(layer_decay=0.5, decayed="first_groups")'
    run_in(framework, DECAY.format(framework=framework, classifier=CLASSIFIER, settings=texts, path=tmp_path / "found"))
    for number, kind in enumerate(kinds):
        settings, decays = MISTAKES[kind]
        rates = rates_of(config_of(CLASSIFIER), settings)
        with np.load(tmp_path / f"found{number}.npz") as found:
            assert set(found) == set(rates)
            for name in found:
                decay = 0.05 if decays is None or name in decays else 0.0
                np.testing.assert_allclose(found[name], 1 - 0.5 * rates[name] * decay, rtol=3e-7, err_msg=name)


def test_groups_are_few_and_hold_every_parameter_once() -> None:
    config = config_of(CLASSIFIER)
    groups = groups_of(config, FINETUNING)
    assert len({(group.decay, group.rate) for group in groups}) == len(groups) <= 2 * (config.depth + 2)
    names = [name for group in groups for name in group.names]
    assert sorted(names) == sorted(param.name for param in trainable(config))
    assert [group.names for group in groups_of(config_of(PROBE), PROBING)] == [["head.weight"], ["head.bias"]]
    assert [group.adapted for group in groups_of(config_of(PROBE), PROBING)] == [True, False]


def test_the_probe_trains_its_head_alone() -> None:
    config = config_of(PROBE)
    assert [param.name for param in trainable(config)] == ["head.weight", "head.bias"]
    assert [param.name for param in changed(config)] == ["head_norm.mean", "head_norm.var", "head.weight", "head.bias"]
    with pytest.raises(ConfigError, match="train_encoder"):
        ViTConfig(train_encoder=1)  # type: ignore[arg-type]


def official_lars(
    p: NDArray[Any], g: NDArray[Any], mu: NDArray[Any], lr: float, decay: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """One parameter and its momentum after a step, by the law of util/lars.py with momentum .9 and trust .001."""
    if p.ndim > 1:
        g = g + decay * p
        norms = np.linalg.norm(p), np.linalg.norm(g)
        g = g * (0.001 * norms[0] / norms[1] if all(norms) else 1.0)
    mu = 0.9 * mu + g
    return p - lr * mu, mu


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("zero", ["", "weight", "gradient"])
def test_lars_is_the_official_law(decay: float, zero: str) -> None:
    config, runtime, rng = config_of(PROBE), load_backend("numpy"), np.random.default_rng(0)
    weights = {name: rng.standard_normal(array.shape) for name, array in initial_weights(config).items()}
    if zero == "weight":
        weights["head.weight"][:] = 0
    model = runtime.build(config, weights, dtype="float64")
    weights = runtime.weights(model)
    optimizer = runtime.optimizer(model, replace(PROBING, weight_decay=decay))
    expected = {name: (weights[name], np.zeros_like(weights[name])) for name in optimizer.decay}
    for step in range(3):
        gradients = {name: rng.standard_normal(p.shape) * (zero != "gradient") for name, (p, _) in expected.items()}
        for name, (p, mu) in expected.items():
            expected[name] = official_lars(p, gradients[name], mu, 0.1 / (step + 1), decay)
        optimizer.step(optimizer.tensors(gradients), 0.1 / (step + 1))
    after, state = runtime.weights(model), optimizer.state()
    assert state.step == 3
    assert state.v == {}
    for name, (p, mu) in expected.items():
        np.testing.assert_allclose(after[name], p, rtol=1e-13)
        np.testing.assert_allclose(state.m[name], mu, rtol=1e-13)
    frozen = [name for name in weights if name not in expected]
    assert all(np.array_equal(after[name], weights[name]) for name in frozen)


def test_the_decay_of_an_average_warms_up() -> None:
    """timm's get_decay: s = update - 1; 0 at s = 0, then 1 - (1 + s) ** -(2/3), up to the decay."""
    law = Averaging(0.9, warmup=True)
    assert [law.at(1), law.at(2), law.at(1000)] == [0, pytest.approx(1 - 2 ** (-2 / 3)), 0.9]
    assert Averaging(0.9, warmup=True, gamma=2, power=0.75).at(5) == pytest.approx(1 - 3**-0.75)
    assert {Averaging(0.9).at(update) for update in (1, 2, 1000)} == {0.9}


SCRIPT = """
import numpy as np
from dataclasses import replace
from polymae.backends.averaging import Averaging, Averaged
from polymae.backends.initial import initial_weights
from polymae.backends.optimization import FINETUNING, PROBING, State
from polymae.backends.presets import model_config
from polymae.backends.runtime import load_backend
runtime = load_backend("{framework}")
runtime.setup()
found = {{}}
rng = np.random.default_rng(0)

def drawn(shapes):
    return {{name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}}

probing = replace(PROBING, weight_decay=0.1)
for kind, text, settings in (("finetuning", "{classifier}", FINETUNING), ("probing", "{probe}", probing)):
    config = model_config(text)
    shapes = {{name: array.shape for name, array in initial_weights(config).items()}}
    weights = drawn(shapes)
    if "head_norm.var" in weights:
        weights["head_norm.var"] = np.abs(weights["head_norm.var"])
    model = runtime.build(config, weights, dtype="{dtype}")
    optimizer, average = runtime.optimizer(model, settings), runtime.average(model, Averaging(0.9, warmup=True))
    for step in range(3):
        gradients = drawn({{name: shapes[name] for name in optimizer.decay}})
        optimizer.step(optimizer.tensors(gradients), 1e-2)
        average.update()
    own = runtime.weights(model)
    with average.swapped():
        swapped = runtime.weights(model)
    back = runtime.weights(model)
    state, moments = average.state(), optimizer.state()
    assert state.updates == 3 and moments.step == 3
    assert all(np.array_equal(own[name], back[name]) for name in own), "the swap is not undone"
    assert all(np.array_equal(swapped[name], state.weights.get(name, own[name])) for name in own)
    assert any(not np.array_equal(swapped[name], own[name]) for name in state.weights)
    for name in state.weights:
        found[f"{{kind}}/ema/{{name}}"] = state.weights[name]
    for name in optimizer.decay:
        found[f"{{kind}}/weights/{{name}}"] = own[name]
        found[f"{{kind}}/m/{{name}}"] = moments.m[name]
    assert set(moments.v) == (set() if kind == "probing" else set(moments.m))
    other = runtime.average(model, Averaging(0.9, warmup=True))
    other.load_state(state)
    again = runtime.optimizer(model, settings)
    again.load_state(moments)
    assert other.state().updates == 3 and again.state().step == 3
    assert all(np.array_equal(other.state().weights[name], array) for name, array in state.weights.items())
    assert all(np.array_equal(again.state().m[name], array) for name, array in moments.m.items())
    found[f"{{kind}}/rates"] = np.array(list(optimizer.rates.values()))
    assert list(optimizer.rates) == list(optimizer.decay)
np.savez("{path}", **found)
"""


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NDArray[Any]]:
    return taken("numpy", tmp_path_factory.mktemp("oracle") / "oracle.npz", "float64")


def taken(framework: str, path: Path, dtype: str) -> dict[str, NDArray[Any]]:
    text = SCRIPT.format(framework=framework, path=path, dtype=dtype, classifier=CLASSIFIER, probe=PROBE)
    run_in(framework, text)
    with np.load(path) as found:
        return dict(found)


def test_every_framework_has_them(framework: str, tmp_path: Path, oracle: dict[str, NDArray[Any]]) -> None:
    found = taken(framework, tmp_path / "found.npz", "float32")
    assert found.keys() == oracle.keys()
    for name, expected in oracle.items():
        assert np.linalg.norm(found[name] - expected) <= 5e-7 * np.linalg.norm(expected), name
    if framework != "megengine":
        found = taken(framework, tmp_path / "found64.npz", "float64")
        for name, expected in oracle.items():
            assert np.linalg.norm(found[name] - expected) <= 1e-13 * np.linalg.norm(expected), name


def test_the_average_is_of_the_weights_behind_the_update() -> None:
    """e = d e + (1 - d) p, by hand, of constant decay: it begins with the weights as they were."""
    config, runtime = config_of(PROBE), load_backend("numpy")
    model = runtime.build(config, initial_weights(config, 3), dtype="float64")
    average = runtime.average(model, Averaging(0.75))
    expected = {name: runtime.weights(model)[name] for name in average.names}
    for step in range(3):
        for name in average.names:
            runtime.named_parameters(model)[name][:] += step + 1
        average.update()
        expected = {n: 0.75 * e + 0.25 * runtime.weights(model)[n] for n, e in expected.items()}
    for name, array in average.state().weights.items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-14)
    average.load_state(Averaged(9, expected))
    assert average.state().updates == 9


def test_a_state_of_lars_has_its_momentum_alone() -> None:
    config, runtime = config_of(PROBE), load_backend("numpy")
    optimizer = runtime.optimizer(runtime.build(config), PROBING)
    assert PROBING.moments == ("m",)
    assert FINETUNING.moments == ("m", "v")
    ones = {param.name: np.ones(param.shape) for param in trainable(config)}
    optimizer.load_state(State(4, ones, {}))
    assert optimizer.state().step == 4
    assert list(optimizer.state().m) == ["head.weight", "head.bias"]
