"""ViTMAEForPreTraining and ViTForImageClassification: what they write they read again, and what cannot be had is an error."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import refuses
from published import CLASSIFIER, FILES, MODEL, WEIGHTS, publish
from server import Server, unused_port
from tiny_run import SETTINGS, tiny_data

from polymae.backends.config import Config
from polymae.backends.initial import initial_weights
from polymae.backends.presets import model_config
from polymae.backends.runtime import framework_of, load_backend
from polymae.cli.convert_weights import main as convert
from polymae.convert.checkpoint import content_hash
from polymae.convert.writing import official_checkpoint, write_checkpoint
from polymae.files.errors import Problem
from polymae.hub import load
from polymae.interfaces import ViTForImageClassification, ViTMAEForPreTraining
from polymae.training.measured import told_of
from polymae.training.pretrain import pretrain
from polymae.training.reading import read_recipe

SIZES = "img_size=(16,24),patch_size=8,in_chans=1,embed_dim=24,depth=2,num_heads=6,mlp_ratio=2"
DECODER = "decoder_embed_dim=16,decoder_depth=1,decoder_num_heads=2"
# No preset has these: sizes, heads, eps, families' ways of computing, kinds of head.
CONFIGS = {
    "sizes": f"{SIZES},{DECODER},norm_pix_loss=true,norm_eps=1e-5,block_norm_eps=1e-4",
    "flyegle": f"{SIZES},{DECODER},positions=1d,head=conv,decoder_norm=false,masking=raster,loss_over=all",
    "trained positions": f"{SIZES},{DECODER},train_positions=true",
    "classifier": f"{SIZES},num_classes=7,pooling=cls,train_positions=false,norm_eps=1e-5",
    "mean": f"{SIZES},num_classes=3,pooling=mean",
    "probe": f"{SIZES},num_classes=3,pooling=cls,head_norm=true,train_encoder=false",
}


def of_config(config: Config) -> Any:
    return ViTForImageClassification if hasattr(config, "num_classes") else ViTMAEForPreTraining


def written(folder: Path, config: Config, **note: Any) -> Path:
    """A file of these weights, that says its configuration."""
    write_checkpoint(
        "torch", folder / "in.safetensors", config, initial_weights(config, 5), source={"name": "x"} | note
    )
    return folder / "in.safetensors"


@pytest.fixture
def published(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server with what is published of the small model, and an empty cache."""
    monkeypatch.setenv("POLYMAE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("POLYMAE_REGISTRY", str(publish(tmp_path / "served", f"{server.base}/")))
    monkeypatch.delenv("POLYMAE_MIRROR", raising=False)
    for path in FILES.values():
        server.add(f"/{path}", (tmp_path / "served" / path).read_bytes())
    return server


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_saved_is_the_same_model_again(name: str, framework: str, tmp_path: Path) -> None:
    config = model_config(CONFIGS[name])
    public, runtime = of_config(config), load_backend(framework)
    model = public.from_pretrained(written(tmp_path, config), framework, verbose=False)
    path = model.save_pretrained(tmp_path / "saved", name="mine")
    assert path.parent == tmp_path / "saved"
    again = public.from_pretrained(tmp_path / "saved", framework, verbose=False)
    assert (again.config, model.config) == (config, config)
    weights = runtime.weights(again)
    assert {one: array.tobytes() for one, array in weights.items()} == {
        one: array.tobytes() for one, array in initial_weights(config, 5).items()
    }
    # And in NumPy, whatever wrote it.
    assert content_hash(load_backend("numpy").weights(public.from_pretrained(path, "numpy", verbose=False))) == (
        content_hash(weights)
    )


def test_a_file_without_its_note_would_be_seen(tmp_path: Path) -> None:
    config = model_config(CONFIGS["sizes"])
    path = ViTMAEForPreTraining.from_pretrained(written(tmp_path, config), "torch").save_pretrained(tmp_path / "saved")
    path.with_name(f"{path.name}.polymae.json").unlink()
    with refuses("unknown-model"):
        ViTMAEForPreTraining.from_pretrained(path, "numpy")
    assert ViTMAEForPreTraining.from_pretrained(path, "numpy", model=CONFIGS["sizes"]).config == config
    assert ViTMAEForPreTraining.from_pretrained(
        path, "numpy", model=CONFIGS["sizes"].replace("num_heads=6", "num_heads=3")
    ).config == replace(config, num_heads=3)


def test_a_model_is_its_frameworks_own_and_ours(framework: str, tmp_path: Path) -> None:
    config = model_config(CONFIGS["sizes"])
    path = written(tmp_path, config)
    model = ViTMAEForPreTraining.from_pretrained(path, framework, verbose=False)
    own = load(CONFIGS["sizes"], framework, weights=path, verbose=False)
    assert isinstance(model, ViTMAEForPreTraining)
    assert isinstance(model, type(own))
    assert not isinstance(own, ViTMAEForPreTraining)
    assert framework_of(model) == framework_of(own) == framework
    runtime = load_backend(framework)
    rng = np.random.default_rng(0)
    imgs, noise = rng.random((2, 1, 16, 24), np.float32), rng.random((2, 6), np.float32)
    losses = [
        runtime.to_numpy(one(runtime.from_numpy(imgs, one), runtime.from_numpy(noise, one), 0.5)[0])
        for one in (model, own, copy.deepcopy(model))
    ]
    assert losses[0] == losses[1] == losses[2]
    assert type(copy.deepcopy(model)) is type(model)
    if framework != "mindspore":  # none of whose models can be pickled
        again = pickle.loads(pickle.dumps(model))
        assert type(again) is type(model)
        assert content_hash(runtime.weights(again)) == content_hash(runtime.weights(model))


def test_what_is_published_by_its_names(published: Server) -> None:
    for public, name, kind in (
        (ViTMAEForPreTraining, MODEL, "visualize"),
        (ViTMAEForPreTraining, "mae_vit_test_p8", "visualize"),  # as mindformers would write it
        (ViTMAEForPreTraining, "mae_pretrain_vit_test_full", "full"),
        (ViTForImageClassification, CLASSIFIER, "finetuned"),
    ):
        model: Any = public.from_pretrained(name, "numpy", verbose=False)
        assert content_hash(load_backend("numpy").weights(model)) == content_hash(WEIGHTS[kind])
        if public is ViTMAEForPreTraining:
            assert model.config.norm_pix_loss == (kind == "full")
    classifier = ViTForImageClassification.from_pretrained("mae_pretrain_vit_test", "numpy", num_classes=4)
    found = load_backend("numpy").weights(classifier)
    assert found["head.weight"].shape == (4, 48)
    assert (found["cls_token"] == WEIGHTS["pretrain"]["cls_token"]).all()
    assert MODEL in ViTMAEForPreTraining.get_support_list()
    assert CLASSIFIER in ViTForImageClassification.get_support_list()


@pytest.mark.parametrize("fault", ["not there", "cut", "another file", "nobody listens", "offline"])
def test_a_failed_download_is_an_error_and_never_a_random_model(
    fault: str, framework: str, published: Server, quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/{FILES['visualize']}"
    if fault == "not there":
        del published.files[path]
    elif fault == "cut":
        published.files[path].cuts = [100] * 100
        published.files[path].ranges = False
    elif fault == "another file":
        published.files[path].body = (tmp_path / "served" / FILES["full"]).read_bytes()
    elif fault == "nobody listens":
        monkeypatch.setenv("POLYMAE_MIRROR", f"http://127.0.0.1:{unused_port()}")
    else:
        monkeypatch.setenv("POLYMAE_OFFLINE", "1")
    with pytest.raises(Problem):
        ViTMAEForPreTraining.from_pretrained(MODEL, framework)


def test_the_list_of_what_is_supported_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    ViTMAEForPreTraining.show_support_list()
    assert capsys.readouterr().out.split() == ViTMAEForPreTraining.get_support_list()
    assert "mae_vit_base_patch16" in ViTMAEForPreTraining.get_support_list()
    assert "mae_vit_tiny_patch16" not in ViTMAEForPreTraining.get_support_list()  # nothing is published for it
    assert "vit_base_patch16" in ViTForImageClassification.get_support_list()
    assert not set(ViTMAEForPreTraining.get_support_list()) & set(ViTForImageClassification.get_support_list())


def test_what_a_run_knows_goes_with_its_weights(tmp_path: Path) -> None:
    data = tiny_data(tmp_path / "data")
    recipe = read_recipe(None, (*SETTINGS, "steps=1", "mask_ratio=0.5", "mean=[0.1,0.2,0.3]", "std=[0.5,0.6,0.7]"))
    pretrain("numpy", data, tmp_path / "run", recipe)
    model = ViTMAEForPreTraining.from_pretrained(tmp_path / "run", "numpy")
    again = ViTMAEForPreTraining.from_pretrained(model.save_pretrained(tmp_path / "saved"), "numpy")
    for one in (model, again):
        assert one.mask_ratio == 0.5
        assert (one.images.mean, one.images.std) == ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
        assert one.images == recipe.augmentation.plain
    # Of a file that says nothing, the usual.
    config = model_config(MODEL)
    official_checkpoint(tmp_path / "plain.pth", config, initial_weights(config, 1))
    told = told_of(tmp_path / "plain.pth")
    assert (told.mask_ratio, told.images) == (0.75, None)


def test_the_mask_ratio_that_other_programs_files_say(tmp_path: Path) -> None:
    config = model_config(MODEL)
    official_checkpoint(tmp_path / "mae.pth", config, initial_weights(config, 1))
    assert convert(["huggingface", "-c", str(tmp_path / "mae.pth"), "-o", str(tmp_path / "hf")]) == 0
    said = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(json.dumps({**said, "mask_ratio": 0.6}))
    assert ViTMAEForPreTraining.from_pretrained(tmp_path / "hf", "numpy").mask_ratio == 0.6
    for ratio, expected in ((0.4, 0.4), (7.0, 0.75), ("most", 0.75)):
        note = {"name": "x", "mask_ratio": ratio}
        path = tmp_path / f"{ratio}.npz"
        write_checkpoint("numpy", path, config, initial_weights(config, 1), source=note)
        assert ViTMAEForPreTraining.from_pretrained(path, "numpy").mask_ratio == expected


def test_a_note_of_images_that_is_not_understood(tmp_path: Path) -> None:
    path = written(tmp_path, model_config(CONFIGS["sizes"]), images={"colour": "blue"})
    with refuses("bad-note"):
        ViTMAEForPreTraining.from_pretrained(path, "numpy")


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda folder: ViTMAEForPreTraining(), "bad-argument"),
        (lambda folder: ViTMAEForPreTraining.from_pretrained("mae_vit_base_p61", "numpy"), "no-such-file"),
        (lambda folder: ViTMAEForPreTraining.from_pretrained("", "numpy"), "bad-argument"),
        (lambda folder: ViTMAEForPreTraining.from_pretrained(3, "numpy"), "bad-argument"),
        (lambda folder: ViTMAEForPreTraining.from_pretrained(folder / "vit.npz", "numpy"), "does-not-fit"),
        (lambda folder: ViTMAEForPreTraining.from_pretrained(folder / "encoder.pth", "numpy"), "does-not-fit"),
        (lambda folder: ViTMAEForPreTraining.from_pretrained(folder, "numpy"), "ambiguous"),
        (lambda folder: ViTMAEForPreTraining.from_pretrained(folder / "empty", "numpy"), "not-a-checkpoint"),
        (
            lambda folder: ViTMAEForPreTraining.from_pretrained(folder / "mae.npz", "numpy", cache_dir="x"),
            "bad-argument",
        ),
        (lambda folder: ViTMAEForPreTraining.from_pretrained(folder / "mae.npz", "jax"), "other"),
        (
            lambda folder: ViTMAEForPreTraining.from_pretrained(folder / "mae.npz", "numpy").save_pretrained(
                folder, name="a/b"
            ),
            "bad-argument",
        ),
    ],
)
def test_bad_requests(call: Any, code: str, tmp_path: Path) -> None:
    for name in ("mae.npz", "vit.npz"):
        config = model_config(CONFIGS["classifier" if name == "vit.npz" else "sizes"])
        write_checkpoint("numpy", tmp_path / name, config, initial_weights(config, 0), source={"name": "x"})
    config = model_config(MODEL)
    encoder = {
        name: array
        for name, array in initial_weights(config, 0).items()
        if not name.startswith(("decoder_", "mask_token"))
    }
    official_checkpoint(tmp_path / "encoder.pth", config, encoder)
    (tmp_path / "empty").mkdir()
    with refuses(code):
        call(tmp_path)


def test_advice_names_what_to_use_instead(tmp_path: Path) -> None:
    for argument, use in (("torch_dtype", "dtype="), ("cache_dir", "POLYMAE_HOME"), ("num_clases", "num_classes")):
        with pytest.raises(Problem, match=use):
            ViTForImageClassification.from_pretrained(tmp_path, "numpy", **{argument: "x"})
    written(tmp_path, model_config(CONFIGS["classifier"]))
    with pytest.raises(Problem, match="ViTForImageClassification"):
        ViTMAEForPreTraining.from_pretrained(tmp_path, "numpy")
    with pytest.raises(Problem, match="mae_vit_base_patch16"):
        ViTMAEForPreTraining.from_pretrained("vit_base_p16", "numpy")
