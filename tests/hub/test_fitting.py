"""Files that are not exactly of the model that is asked for: another size, other classes, another project, another use."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from published import CLASSIFIER, FILES, MODEL, WEIGHTS, publish
from safetensors.numpy import load_file, save_file

from polymae.backends.config import ConfigError
from polymae.backends.initial import initial_weights
from polymae.backends.presets import model_config
from polymae.cli.convert_weights import main as convert
from polymae.convert.interpolation import resize_positions
from polymae.convert.tensors import CheckpointProblem
from polymae.convert.writing import official_checkpoint
from polymae.files.errors import Problem
from polymae.hub import load
from polymae.hub.entries import entries
from polymae.hub.fitting import fit
from polymae.hub.resolve import Source

VISUALIZE = WEIGHTS["visualize"]


def written(path: Path, model: str = MODEL, seed: int = 5, **settings: object) -> tuple[str, dict[str, np.ndarray]]:
    config = model_config(model, **settings)
    weights = initial_weights(config, seed)
    official_checkpoint(path, config, weights)
    return str(path), weights


def converted(
    tmp_path: Path, *arguments: str, framework: str = "mindspore", model: str = MODEL, name: str = "c.ckpt"
) -> str:
    """A file of another framework, with its provenance."""
    source, _ = written(tmp_path / "source.pth", model)
    assert convert([framework, "-c", source, "-o", str(tmp_path / name), *arguments]) == 0
    return str(tmp_path / name)


@pytest.mark.parametrize("size", [(48, 48), (48, 32)])
def test_what_was_trained_at_another_size_is_loaded_back(tmp_path: Path, size: tuple[int, int]) -> None:
    """As a user saves a fine-tuned model: no provenance, only the length of its position table."""
    path, weights = written(tmp_path / "tuned.pth", CLASSIFIER, img_size=size, num_classes=7)
    same = fit(path, CLASSIFIER, size, num_classes=7)
    assert same.config.img_size == size
    assert all(np.array_equal(array, weights[name]) for name, array in same.weights.items())
    assert same.initialised == same.done == ()
    other = fit(path, CLASSIFIER, (64, 64)) if size == (48, 48) else None
    if other is not None:  # from its own size, not from the preset's
        assert np.array_equal(other.weights["pos_embed"], resize_positions(weights["pos_embed"], (6, 6), (8, 8)))
        left = fit(path, CLASSIFIER)  # as it is
        assert left.config.img_size == size
        assert left.done == ("for images of 48x48 pixels, as the file",)
    else:  # 24 patches: what they form has to be told
        with pytest.raises(CheckpointProblem, match="pos_embed"):
            fit(path, CLASSIFIER)


@pytest.mark.parametrize("model", [MODEL, CLASSIFIER])
def test_what_was_converted_to_another_size_is_loaded(tmp_path: Path, model: str) -> None:
    path = converted(tmp_path, "--image-size", "64", model=model)
    for asked, expected in ((None, (64, 64)), ((64, 64), (64, 64)), ((32, 32), (32, 32)), ((48, 32), (48, 32))):
        assert fit(path, model, asked).config.img_size == expected
    assert convert(["torch", "-m", model, "-c", path, "-o", str(tmp_path / "t.pth"), "--image-size", "64"]) == 0


def test_the_command_takes_a_file_of_the_size_that_is_asked_for(tmp_path: Path) -> None:
    path, _ = written(tmp_path / "tuned.pth", CLASSIFIER, img_size=(48, 48))
    assert (
        convert(["megengine", "-m", CLASSIFIER, "--image-size", "48", "-c", path, "-o", str(tmp_path / "x.pkl")]) == 0
    )


def test_a_file_without_a_head_takes_any_classes(tmp_path: Path) -> None:
    path = converted(tmp_path, "--num-classes", "7", model=CLASSIFIER)
    for settings, classes in (({}, 7), ({"num_classes": 7}, 7), ({"num_classes": 9}, 9)):
        fitted = fit(path, CLASSIFIER, **settings)
        assert fitted.initialised == ("head.weight", "head.bias")
        assert fitted.weights["head.weight"].shape == (classes, 48)


def test_an_encoder_of_another_size_for_a_classifier(tmp_path: Path) -> None:
    path, weights = written(tmp_path / "mae.pth")
    fitted = fit(path, CLASSIFIER, (64, 64), num_classes=3)
    assert np.array_equal(fitted.weights["pos_embed"], resize_positions(weights["pos_embed"], (4, 4), (8, 8)))
    assert fitted.done == ("without the decoder", "position tables interpolated from 32x32 to 64x64 pixels")


@pytest.mark.parametrize("family", ["libai", "flyegle"])
def test_encoders_of_other_families(tmp_path: Path, family: str) -> None:
    config = model_config(f"{family}_{MODEL}")
    official_checkpoint(tmp_path / "mae.pth", config, initial_weights(config))
    assert (
        convert(
            ["mindspore", "-m", f"{family}_{MODEL}", "-c", str(tmp_path / "mae.pth"), "-o", str(tmp_path / "c.ckpt")]
        )
        == 0
    )
    for name in (f"{family}_{CLASSIFIER}", CLASSIFIER):
        found = fit(tmp_path / "c.ckpt", name).config
        assert found.eps_of_blocks == config.eps_of_blocks == 1e-5  # as the file says that it was trained
        assert found.positions == config.positions
        assert found.train_positions == model_config(name).train_positions  # the classifier's own
    by_hand = fit(tmp_path / "c.ckpt", CLASSIFIER, norm_eps=1e-4).config
    assert by_hand.norm_eps == 1e-4


def test_what_a_file_says_of_itself_is_not_overruled(tmp_path: Path) -> None:
    sizes = "img_size=32,patch_size=8,embed_dim=48,depth=3,num_heads=4,decoder_embed_dim=32,decoder_depth=2,decoder_num_heads=4"
    path = converted(tmp_path, "-m", sizes)
    for name in (MODEL, CLASSIFIER):
        with pytest.raises(CheckpointProblem, match="num_heads=4, not 3"):
            fit(path, name)
    assert fit(path, CLASSIFIER, num_heads=4).config.num_heads == 4


def test_a_provenance_of_other_weights_is_noticed_whatever_is_changed(tmp_path: Path) -> None:
    path = converted(tmp_path, model=CLASSIFIER)
    beside = Path(f"{path}.polymae.json")
    beside.write_text(json.dumps(json.loads(beside.read_text()) | {"hash": "0" * 64}))
    for settings in ({}, {"num_classes": 3}, {"image_size": (64, 64)}):
        with pytest.raises(CheckpointProblem, match="of other weights"):
            fit(path, CLASSIFIER, **settings)


def test_what_weights_were_trained_for_and_no_model_here_computes_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = converted(tmp_path, "--to", "mindformers-0.8")
    Path(f"{path}.polymae.json").unlink()  # as mindformers itself writes it
    capsys.readouterr()
    load(MODEL, "numpy", weights=path)
    said = capsys.readouterr().err
    assert "GELU: these weights are for its tanh approximation, polymae computes with the exact one" in said


def test_the_loss_is_that_of_the_file(tmp_path: Path) -> None:
    path, _ = written(tmp_path / "mae.pth")
    assert convert(["mindspore", "-m", f"{tmp_path}/m.json", "-c", path, "-o", str(tmp_path / "c.ckpt")]) == 2
    settings = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3, "decoder_embed_dim": 32}
    settings |= {"decoder_depth": 2, "decoder_num_heads": 4, "norm_pix_loss": True}
    (tmp_path / "m.json").write_text(json.dumps(settings))
    assert convert(["mindspore", "-m", f"{tmp_path}/m.json", "-c", path, "-o", str(tmp_path / "c.ckpt")]) == 0
    assert load(MODEL, "numpy", weights=tmp_path / "c.ckpt").norm_pix_loss
    assert not load(MODEL, "numpy", weights=tmp_path / "c.ckpt", norm_pix_loss=False).norm_pix_loss
    assert not load(MODEL, "numpy", weights=path).norm_pix_loss


def test_an_official_file_is_known_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYMAE_REGISTRY", str(publish(tmp_path)))
    assert load(MODEL, "numpy", weights=tmp_path / FILES["full"]).norm_pix_loss
    assert not load(MODEL, "numpy", weights=tmp_path / FILES["visualize"]).norm_pix_loss


@pytest.mark.parametrize("weights", [None, "file"])
def test_device_and_dtype_reach_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str | None) -> None:
    path = None if weights is None else written(tmp_path / "mae.pth")[0]
    assert load(MODEL, "numpy", weights=path, dtype="float64").cls_token.dtype == np.float64
    assert load(MODEL, "numpy", weights=path, dtype=np.dtype("float32")).cls_token.dtype == np.float32
    asked = []
    monkeypatch.setattr("polymae.hub.loading.require_device", lambda *_: None)
    monkeypatch.setattr(
        "polymae.backends.numpy.runtime.Backend.build", lambda self, config, weights, *rest: asked.append(rest)
    )
    load(MODEL, "numpy", weights=path, device="cuda")
    assert asked == [("cuda", "float32")]


def test_settings_that_contradict_each_other_or_the_file(tmp_path: Path) -> None:
    path, _ = written(tmp_path / "c.pth", CLASSIFIER)
    for settings, said in (
        ({"image_size": 64, "img_size": 32}, "the same setting"),
        ({"global_pool": "cls"}, "global_pool is 'cls'; it must be True"),
        ({"global_pool": True, "pooling": "gap"}, "pooling left out"),
        ({"head_norm": True}, "head_norm=False, not True"),
        ({"pooling": "cls"}, "pooling=gap, not cls"),
        ({"mask_ratio": 0.5}, "an argument of the call"),
        ({"decoder_depth": 2}, "a classifier has none; it is one of autoencoders"),
    ):
        with pytest.raises((Problem, ConfigError), match=said):
            load(CLASSIFIER, "numpy", weights=path, **settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="an autoencoder has none; it is one of classifiers"):
        load(MODEL, "numpy", num_classes=10)
    with pytest.raises(Problem, match="Did you mean 'torch'"):
        load(MODEL, "pytorch")
    with pytest.raises(CheckpointProblem, match=r"another kind: classifier \(vit_test_patch8\), and an autoencoder"):
        load(MODEL, "numpy", weights=path)


def test_the_official_constructor_takes_what_the_weights_were_trained_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    MAE = entries("numpy")["MAE"]
    sizes = {"patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3, "decoder_embed_dim": 32, "decoder_depth": 2}
    sizes |= {"decoder_num_heads": 4}
    path, weights = written(tmp_path / "mae.pth")
    larger = MAE(img_size=64, **sizes, pretrained=path)
    assert np.array_equal(larger.pos_embed, resize_positions(weights["pos_embed"], (4, 4), (8, 8)))
    other = replace(model_config(MODEL), norm_eps=1e-5)
    assert MAE(img_size=32, **sizes, norm_layer=None, pretrained=path).config.norm_eps == 1e-6
    assert MAE(img_size=32, **sizes, norm_eps=1e-5).config == other

    class Asked(Exception):
        pass

    def fetch(self: Source, framework: str | None = None) -> Path:
        raise Asked(self.row and self.row.name)

    monkeypatch.setattr(Source, "fetch", fetch)
    for settings, row in (({}, "visualize_vit_large"), ({"norm_pix_loss": True}, "pretrain_vit_large_full")):
        with pytest.raises(Asked, match=f"^mae_{row}$"):
            MAE(pretrained=True, **settings)


def test_a_folder_as_timm_publishes_it(tmp_path: Path) -> None:
    source, weights = written(tmp_path / "source.pth")
    made = tmp_path / "made.safetensors"
    assert convert(["timm", "-c", source, "--encoder-only", "-o", str(made)]) == 0
    folder = tmp_path / "vit.mae"
    folder.mkdir()
    save_file(load_file(made), folder / "model.safetensors")  # without the note that we write into it
    config = {"architecture": "vit_base_patch16_224", "num_classes": 0, "global_pool": "token", "pretrained_cfg": {}}
    (folder / "config.json").write_text(json.dumps(config))
    fitted = fit(folder, CLASSIFIER, pooling="cls")
    assert fitted.initialised == ("head.weight", "head.bias")
    assert np.array_equal(fitted.weights["norm.weight"], weights["norm.weight"])
