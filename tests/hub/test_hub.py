"""One name, one file, the same model in every framework; which weights a name and `pretrained` mean."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import children
import numpy as np
import pytest
from published import CLASSIFIER, FILES, MODEL, WEIGHTS, publish

from polymae.backends.config import ConfigError
from polymae.backends.initial import initial_weights
from polymae.backends.presets import model_config
from polymae.backends.runtime import RuntimeProblem
from polymae.convert.checkpoint import content_hash
from polymae.convert.interpolation import resize_positions
from polymae.convert.tensors import CheckpointProblem
from polymae.convert.writing import official_checkpoint
from polymae.files.errors import Problem
from polymae.hub import list_models, load
from polymae.hub.fitting import fit

LOAD = """
import json, sys
from polymae.backends.runtime import load_backend
from polymae.convert.checkpoint import content_hash
from polymae.hub import load
model = load(sys.argv[1], framework=sys.argv[2], weights=sys.argv[3])
print(json.dumps([type(model).__module__, type(model).__name__, content_hash(load_backend(sys.argv[2]).weights(model))]))
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of official-layout files, which the registry knows."""
    monkeypatch.setenv("POLYMAE_REGISTRY", str(publish(tmp_path / "served")))
    return tmp_path / "served"


def test_a_checkpoint_loads_into_every_framework(framework: str, tmp_path: Path) -> None:
    weights = initial_weights(model_config(MODEL), seed=4)
    official_checkpoint(tmp_path / "official.pth", model_config(MODEL), weights)
    arguments = [sys.executable, "-c", LOAD, MODEL, framework, str(tmp_path / "official.pth")]
    done = children.run(arguments, text=True)
    assert done.returncode == 0, done.stderr
    module, kind, digest = json.loads(done.stdout.splitlines()[-1])
    assert (module, kind) == (f"polymae.backends.{framework}.model", "MAE")
    assert digest == content_hash(weights)


def test_a_model_without_weights_has_the_initial_ones() -> None:
    model = load(MODEL, framework="numpy")
    assert (model.decoder_pred.weight == initial_weights(model_config(MODEL))["decoder_pred.weight"]).all()


def test_unknown_framework_and_listed_names() -> None:
    with pytest.raises(RuntimeProblem, match="jax"):
        load(MODEL, framework="jax")
    some = {"mae_vit_base_patch16", "mae_vit_base_patch16_dec512d8b", "vit_huge_patch14", "libai_vit_base_patch16"}
    assert some <= set(list_models())


def test_the_small_models_of_the_tests_are_listed_by_who_has_weights_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = list_models()
    assert len(listed) > 20
    assert not [name for name in listed if "test" in name]
    monkeypatch.setenv("POLYMAE_REGISTRY", str(publish(tmp_path)))
    assert {*list_models()} - {*listed} == {MODEL, CLASSIFIER}


@pytest.mark.parametrize(
    ("settings", "missing", "left_over"),
    [
        ({}, ("head.weight", "head.bias", "fc_norm.weight", "fc_norm.bias"), ("norm.weight", "norm.bias")),
        ({"pooling": "cls", "num_classes": 7}, ("head.weight", "head.bias"), ()),
    ],
    ids=["gap", "cls"],
)
@pytest.mark.parametrize("kind", ["pretrain", "visualize"])
def test_a_classifier_begins_from_an_encoder(files: Path, kind, settings, missing, left_over) -> None:
    fitted = fit(files / FILES[kind], CLASSIFIER, **settings)
    assert fitted.initialised == missing  # exactly what official fine-tuning expects
    assert fitted.dropped == left_over
    config = model_config(CLASSIFIER, **settings)
    initial = initial_weights(config)
    assert fitted.config == config
    for name, array in fitted.weights.items():
        expected = initial[name] if name in missing else WEIGHTS[kind][name]
        assert np.array_equal(array, expected), name
    load(CLASSIFIER, "numpy", weights=files / FILES[kind], **settings)


def test_an_encoder_alone_is_refused_for_an_autoencoder_naming_the_files_that_are_whole(files: Path) -> None:
    with pytest.raises(Problem, match=r"without a decoder.*full \(mae_pretrain_vit_test_full.*visualize \(mae_visual"):
        load(MODEL, "numpy", pretrained="pretrain")
    with pytest.raises(CheckpointProblem, match=r"visualize/mae_visualize_vit_.*\.pth"):
        load(MODEL, "numpy", weights=files / FILES["pretrain"])
    with pytest.raises(Problem, match="full.*visualize"):
        load("mae_vit_base_patch16", "numpy", pretrained="pretrain")


def test_other_classes_and_another_image_size(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same = load(CLASSIFIER, "numpy", weights=files / FILES["finetuned"])
    assert np.array_equal(same.head.weight, WEIGHTS["finetuned"]["head.weight"])
    assert "initialised" not in capsys.readouterr().err
    other = load(CLASSIFIER, "numpy", weights=files / FILES["finetuned"], num_classes=7, image_size=(48, 32))
    assert other.head.weight.shape == (7, 48)
    assert np.array_equal(other.fc_norm.weight, WEIGHTS["finetuned"]["fc_norm.weight"])
    table = resize_positions(WEIGHTS["finetuned"]["pos_embed"], (4, 4), (6, 4))
    assert np.array_equal(other.pos_embed, table)
    said = capsys.readouterr().err
    assert "newly initialised: head.weight, head.bias" in said
    assert "interpolated from 32x32 to 48x32" in said
    model = load(MODEL, "numpy", weights=files / FILES["visualize"], image_size=64, verbose=False)
    assert model.config.img_size == (64, 64)
    assert capsys.readouterr().err == ""


def test_a_classifiers_own_pooling_is_not_overruled(files: Path) -> None:
    with pytest.raises(CheckpointProblem, match="pooling=gap, not cls"):
        load(CLASSIFIER, "numpy", weights=files / FILES["finetuned"], pooling="cls")


def test_the_loss_that_weights_were_trained_for(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polymae.hub.resolve.Source.fetch", lambda self: files / self.row.path)
    assert load(MODEL, "numpy", pretrained="full").norm_pix_loss
    assert not load(MODEL, "numpy", pretrained="full", norm_pix_loss=False).norm_pix_loss
    assert not load(MODEL, "numpy", pretrained=True).norm_pix_loss
    by_hand = load(MODEL, "numpy", pretrained=True, norm_pix_loss=True)  # then the best is that of normalised pixels
    assert np.array_equal(by_hand.mask_token, WEIGHTS["full"]["mask_token"])


def test_settings_that_no_model_has() -> None:
    with pytest.raises(ConfigError, match="'num_clases'; did you mean num_classes"):
        load(CLASSIFIER, "numpy", num_clases=10)
    for size in ("224", (1, 2, 3), True, (32, "32")):
        with pytest.raises(ConfigError, match="image size"):
            load(MODEL, "numpy", image_size=size)  # type: ignore[arg-type]
    assert load(CLASSIFIER, "numpy", global_pool=False).config.pooling == "cls"
    assert load(MODEL, "numpy", img_size=64).config.img_size == (64, 64)
