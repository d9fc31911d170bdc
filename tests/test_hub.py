"""One name, one file, the same model in every framework."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from polymae.backends.initial import initial_weights
from polymae.backends.presets import model_config
from polymae.backends.runtime import RuntimeProblem
from polymae.convert.checkpoint import content_hash
from polymae.convert.writing import official_checkpoint
from polymae.hub import list_models, load

NAME = "mae_vit_test_patch8"
LOAD = """
import json, sys
from polymae.backends.runtime import load_backend
from polymae.convert.checkpoint import content_hash
from polymae.hub import load
model = load(sys.argv[1], framework=sys.argv[2], weights=sys.argv[3])
print(json.dumps([type(model).__module__, type(model).__name__, content_hash(load_backend(sys.argv[2]).weights(model))]))
"""


def test_a_checkpoint_loads_into_every_framework(framework: str, tmp_path: Path) -> None:
    weights = initial_weights(model_config(NAME), seed=4)
    official_checkpoint(tmp_path / "official.pth", model_config(NAME), weights)
    arguments = [sys.executable, "-c", LOAD, NAME, framework, str(tmp_path / "official.pth")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    module, kind, digest = json.loads(done.stdout.splitlines()[-1])
    assert (module, kind) == (f"polymae.backends.{framework}.model", "MAE")
    assert digest == content_hash(weights)


def test_a_model_without_weights_has_the_initial_ones() -> None:
    model = load(NAME, framework="numpy")
    assert (model.decoder_pred.weight == initial_weights(model_config(NAME))["decoder_pred.weight"]).all()


def test_unknown_framework_and_listed_names() -> None:
    with pytest.raises(RuntimeProblem, match="jax"):
        load(NAME, framework="jax")
    some = {"mae_vit_base_patch16", "mae_vit_base_patch16_dec512d8b", "vit_huge_patch14", "libai_vit_base_patch16"}
    assert some <= set(list_models())
