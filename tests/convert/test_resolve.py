"""Which model a checkpoint is: asked once, with the request; and each checkpoint is opened and hashed once."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import children
import numpy as np
import pytest
from checkpoints import CONFIG, MODEL, WEIGHTS

import polymae.convert
from polymae.backends.config import ConfigError, MAEConfig
from polymae.backends.presets import model_config
from polymae.cli.convert_weights import main as convert_weights
from polymae.convert import (
    CheckpointProblem,
    Wish,
    content_hash,
    hashing,
    open_checkpoint,
    prepare,
    resolve,
    write_checkpoint,
)
from polymae.convert import checkpoint as checkpoints
from polymae.convert.writing import official_checkpoint
from polymae.hub import load

CLASSIFIER = "vit_test_patch8"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    official_checkpoint(tmp_path / "mae.pth", CONFIG, WEIGHTS)
    return tmp_path / "mae.pth"


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a file was opened, every tensor of it hashed, and its model guessed from the presets."""
    calls: Counter[str] = Counter()

    def count(module: object, name: str, word: str) -> None:
        function = getattr(module, name)

        def counting(*args: object, **kwargs: object) -> object:
            calls[word] += 1
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, counting)

    count(checkpoints, "find_format", "opened")
    count(hashing, "_hash_one", "tensors hashed")
    count(resolve, "fitting_models", "guessed")
    return calls


def test_opening_guesses_no_model(source: Path, counted: Counter[str]) -> None:
    checkpoint = open_checkpoint(source)
    assert checkpoint.resolve(MODEL).config == CONFIG
    assert counted == {"opened": 1}
    assert (checkpoint.model, checkpoint.config) == (MODEL, CONFIG)
    assert checkpoint.resolve() == resolve.Resolved(MODEL, CONFIG)
    assert counted == {"opened": 1, "guessed": 1}


@pytest.mark.parametrize("arguments", [[], ["-m", MODEL]])
def test_a_conversion_opens_and_hashes_source_and_target_once(
    arguments: list[str], source: Path, tmp_path: Path, counted: Counter[str]
) -> None:
    assert convert_weights(["mindspore", "-c", str(source), "-o", str(tmp_path / "c.ckpt"), *arguments]) == 0
    # With -m too, the first line that is printed names the model that the file shows.
    assert counted == {"opened": 2, "tensors hashed": 2 * len(WEIGHTS), "guessed": 1}


@pytest.mark.parametrize("model", [MODEL, CLASSIFIER])
def test_the_hub_opens_and_hashes_once(model: str, source: Path, counted: Counter[str]) -> None:
    load(model, "numpy", weights=source, verbose=False)
    taken = [name for name in WEIGHTS if model == MODEL or not name.startswith(("decoder_", "mask_token"))]
    assert counted == {"opened": 1, "tensors hashed": len(taken)}


def test_loading_gives_the_hash(source: Path, tmp_path: Path, counted: Counter[str]) -> None:
    weights, digest = open_checkpoint(source).load(CONFIG)
    assert counted["tensors hashed"] == len(WEIGHTS)
    assert digest == content_hash(weights) == content_hash(WEIGHTS)
    halves = convert_weights(
        ["safetensors", "-c", str(source), "-o", f"{tmp_path}/h.safetensors", "--dtype", "float16"]
    )
    assert halves == 0
    weights, digest = open_checkpoint(tmp_path / "h.safetensors").load(CONFIG)
    assert digest == content_hash(weights) != open_checkpoint(tmp_path / "h.safetensors").hash


def test_one_preparation_for_files_and_for_models(source: Path) -> None:
    with pytest.raises(CheckpointProblem) as caught:
        prepare(source, Wish(CLASSIFIER))
    assert caught.value.code == "does-not-fit"
    built = prepare(source, Wish(CLASSIFIER, num_classes=7, settings={"pooling": "cls"}, adapt=True))
    assert built.config == model_config(CLASSIFIER, num_classes=7, pooling="cls")
    assert isinstance(built.weights.config, MAEConfig)
    assert built.weights.contents == "encoder"
    arrays = built.load().weights
    assert all(np.array_equal(arrays[name], WEIGHTS[name]) for name in built.weights.tensors)
    whole = prepare(source, Wish(MODEL))
    assert (whole.config, whole.weights.config, whole.changed) == (CONFIG, CONFIG, False)
    with pytest.raises(ConfigError, match="an autoencoder has none"):
        prepare(source, Wish(MODEL, settings={"pooling": "cls"}, adapt=True))


def test_a_family_that_is_named_with_other_settings_keeps_its_own(tmp_path: Path) -> None:
    """Our files without a provenance do not tell how their program computes: the request does."""
    write_checkpoint("megengine", tmp_path / "m.pkl", CONFIG, WEIGHTS)
    for request, expected in ((f"libai_{MODEL}", {}), (f"libai_{MODEL},norm_pix_loss=true", {"norm_pix_loss": True})):
        assert prepare(tmp_path / "m.pkl", Wish(request)).config == model_config(f"libai_{MODEL}", **expected)
    official_checkpoint(tmp_path / "m.pth", CONFIG, WEIGHTS)  # of the official program, which is known
    assert prepare(tmp_path / "m.pth", Wish(f"libai_{MODEL},norm_pix_loss=true")).config.eps_of_blocks == 1e-6


def test_the_public_names_are_lazy() -> None:
    code = "import sys, polymae.convert; assert not [n for n in sys.modules if n.startswith('polymae.convert.')]; "
    code += "[getattr(polymae.convert, name) for name in polymae.convert.__all__]; print(*polymae.convert.__all__)"
    names = children.run([sys.executable, "-c", code], check=True, text=True).stdout.split()
    assert {"open_checkpoint", "content_hash", "prepare", "convert", "Wish", "CheckpointProblem"} <= set(names)
    assert set(names) <= set(dir(polymae.convert))
    assert polymae.convert.open_checkpoint is checkpoints.open_checkpoint
    with pytest.raises(AttributeError, match="has no attribute 'open_chekpoint'"):
        polymae.convert.open_chekpoint  # type: ignore[attr-defined]  # noqa: B018
