"""pipeline: pictures and classes of whatever people give, in every framework; four images are four files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import refuses
from made_images import picture, write
from PIL import Image
from published import FILES, WEIGHTS, publish
from server import Server
from tiny_classifier import AUTOENCODER, CLASSES, MODEL, autoencoder, classifier, images
from tiny_run import SETTINGS, tiny_data

from polymae.backends.initial import initial_weights
from polymae.backends.presets import model_config
from polymae.backends.runtime import load_backend
from polymae.convert.writing import write_checkpoint
from polymae.data.augment import Augmentation
from polymae.data.draws import mask_noise
from polymae.files.errors import Problem
from polymae.interfaces import ViTForImageClassification, ViTMAEForPreTraining, pipeline
from polymae.training import reconstruct as module
from polymae.training.given import distinct, images_of
from polymae.training.predict import predict
from polymae.training.pretrain import pretrain
from polymae.training.reading import read_recipe
from polymae.training.reconstruct import painted, reconstruct

NORMALISED = model_config(AUTOENCODER, norm_pix_loss=True)
MIM = "masked_image_modeling"


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("painted")
    images(folder / "photos", ("ant", "bee"), count=2)
    autoencoder(folder / "raw.pth")
    classifier(folder / "tuned.pth")
    note = {"name": "here", "mask_ratio": 0.5}
    write_checkpoint("torch", folder / "norm.safetensors", NORMALISED, initial_weights(NORMALISED, 2), source=note)
    return folder


def by_hand(path: str, place: int, seed: int, ratio: float, weights: Any, norm: bool) -> dict[str, Any]:
    """What is to be painted, by NumPy's float64 model and plain loops over patches."""
    runtime = load_backend("numpy")
    config = replace(NORMALISED, norm_pix_loss=norm)
    model = runtime.build(config, weights, dtype="float64")
    prepare = Augmentation(32, crop="centre", flip=0.0)
    pixels = prepare.pixels(Image.open(path).convert("RGB"), 0, 0, 0)
    mean, std = np.array(prepare.mean), np.array(prepare.std)
    standard = (pixels / 255 - mean) / std
    noise = mask_noise(seed, 0, place, 16)
    _, pred, mask = model(standard.transpose(2, 0, 1)[None], noise[None].astype(float), ratio)
    painting = np.zeros((32, 32, 3))
    for patch in range(16):
        rows, columns = (slice(8 * at, 8 * at + 8) for at in divmod(patch, 4))
        values = pred[0, patch].reshape(8, 8, 3)
        if norm:
            true = standard[rows, columns]
            values = values * np.sqrt(true.var(ddof=1) + 1e-6) + true.mean()
        painting[rows, columns] = np.clip(255 * (values * std + mean), 0, 255)
    return {"original": pixels, "reconstruction": painting, "mask": mask[0].reshape(4, 4) > 0.5}


@pytest.mark.parametrize("name", ["raw.pth", "norm.safetensors"])
def test_every_framework_paints_what_is_computed_by_hand(name: str, framework: str, there: Path) -> None:
    norm = name == "norm.safetensors"
    options = {} if norm else {"model_config": AUTOENCODER}
    paint = pipeline(MIM, there / name, framework, seed=3, **options)
    made = paint(there / "photos")
    assert [one.image for one in made] == [
        str(there / "photos" / kind / f"{number}.png") for kind in ("ant", "bee") for number in (0, 1)
    ]
    for place, one in enumerate(made):
        expected = by_hand(
            one.image, place, 3, 0.5 if norm else 0.75, initial_weights(NORMALISED, 2), norm
        )  # the mask ratio that the file says, else the official one
        assert all(panel.dtype == np.uint8 and panel.shape == (32, 32, 3) for panel in one.panels)
        assert (one.original == expected["original"]).all()
        assert (one.mask == expected["mask"]).all()
        assert np.abs(one.reconstruction - expected["reconstruction"]).max() <= 0.51
        hidden = one.mask.repeat(8, 0).repeat(8, 1)
        assert (one.pasted[hidden] == one.reconstruction[hidden]).all()
        assert (one.pasted[~hidden] == one.original[~hidden]).all()
        assert (one.masked[~hidden] == one.original[~hidden]).all()
        assert (one.masked[hidden] == 128).all()


def test_a_painting_of_normalised_patches_that_is_shown_as_it_is_would_be_seen(there: Path) -> None:
    """Which mindformers does: what is planted is that the statistics are not put back."""
    (good, *_) = pipeline(MIM, there / "norm.safetensors", "numpy", seed=3)(there / "photos")
    (bad, *_) = pipeline(MIM, there / "norm.safetensors", "numpy", seed=3, norm_pix_loss=False)(there / "photos")
    expected = by_hand(good.image, 0, 3, 0.5, initial_weights(NORMALISED, 2), True)["reconstruction"]
    assert np.abs(good.reconstruction - expected).max() <= 0.51
    assert np.abs(bad.reconstruction - expected).max() > 10


def test_values_beyond_white_and_black_are_cut_off_and_not_wrapped_around() -> None:
    config = model_config(AUTOENCODER)
    weights = {name: array.copy() for name, array in initial_weights(config, 2).items()}
    weights["decoder_pred.bias"] = np.where(np.arange(config.patch_dim) % 2, 50, -50).astype(np.float32)
    runtime = load_backend("numpy")
    imgs, noise = np.zeros((1, 3, 32, 32), np.float32), mask_noise(0, 0, 0, 16)[None]
    (one,) = painted(runtime, runtime.build(config, weights), Augmentation(32), imgs, noise, 0.75, ["x"])
    assert set(one.reconstruction.ravel().tolist()) == {0, 255}
    assert (one.reconstruction.reshape(32, 4, 8, 3)[:, :, ::2, 0] == 0).all()


def test_masks_are_of_the_seed_and_the_place(there: Path) -> None:
    paint = pipeline(MIM, there / "norm.safetensors", "numpy")
    photos = there / "photos"
    masks = [
        [one.mask.tolist() for one in paint(photos, **how)] for how in ({}, {"seed": 0}, {"batch_size": 3}, {"seed": 1})
    ]
    assert masks[0] == masks[1] == masks[2] != masks[3]
    assert len({str(mask) for mask in masks[0]}) == 4
    assert [one.mask.mean() for one in paint(photos, mask_ratio=0.25)] == [0.25] * 4
    assert pipeline(MIM, there / "norm.safetensors", "numpy", mask_ratio=0.25)(photos)[0].mask.mean() == 0.25
    with refuses("bad-argument"):
        paint(photos, mask_ratio=1.0)


def test_four_images_are_four_files(there: Path, tmp_path: Path) -> None:
    made = pipeline(MIM, there / "norm.safetensors", "numpy")(there / "photos")
    written = made.save(tmp_path / "out")
    assert [path.name for path in written] == ["ant-0.png", "ant-1.png", "bee-0.png", "bee-1.png"]
    for path, one in zip(written, made):
        inside = path.with_suffix("")
        assert sorted(file.name for file in inside.iterdir()) == [
            "mask.npy", "masked.png", "original.png", "pasted.png", "reconstruction.png",
        ]  # fmt: skip
        for name, panel in zip(("original", "masked", "reconstruction", "pasted"), one.panels):
            assert (np.asarray(Image.open(inside / f"{name}.png")) == panel).all()
        assert (np.load(inside / "mask.npy") == one.mask).all()
        assert Image.open(path).size == (3 * (4 * 32 + 3 * 2), 3 * 32)
    assert len({path.read_bytes() for path in written}) == 4
    before = written[0].read_bytes()
    assert made.save(tmp_path / "out") == written  # once more, in their place
    assert written[0].read_bytes() == before


def test_a_folder_of_somebody_elses_is_not_written_over(there: Path, tmp_path: Path) -> None:
    (tmp_path / "bee-1").mkdir()
    (tmp_path / "bee-1" / "thesis.txt").write_text("mine")
    made = pipeline(MIM, there / "norm.safetensors", "numpy")(there / "photos")
    with refuses("cannot-write"):
        made.save(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["bee-1", "thesis.txt"]


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["cat.jpg", "photos/dog.v2.png"], ["cat", "dog-v2"]),
        (["a/0.png", "b/0.png", "c/1.png"], ["a-0", "b-0", "c-1"]),
        (["/a/x/0.png", "/b/x/0.png"], ["a-x-0", "b-x-0"]),
        (["0.png", "0.jpg"], ["0-png", "0-jpg"]),
        (["Cat.png", "cat.png"], ["Cat-0", "cat-1"]),  # one file on some systems
        (["same.png", "same.png"], ["same-0", "same-1"]),
        (["../0.png", "./1.png"], ["0", "1"]),
        ([], []),
    ],
)
def test_names_of_files(names: list[str], files: list[str]) -> None:
    assert distinct(names) == files


def test_whatever_people_give(there: Path, tmp_path: Path) -> None:
    paint = pipeline(MIM, there / "norm.safetensors", "numpy")
    path = there / "photos" / "ant" / "0.png"
    opened, array = Image.open(path), np.asarray(Image.open(path))
    reference = paint(path)[0]
    for given, name in (
        (str(path), str(path)),
        ([path], str(path)),
        (f"{path.parent}/0.*", str(path)),
        (opened, str(path)),
        (opened.copy(), "image-0"),
        (array, "image-0"),
        ([array], "image-0"),
        (array[None], "image-0"),
        (Image.merge("RGBA", [*opened.split(), Image.new("L", opened.size, 7)]), "image-0"),
    ):
        (one,) = paint(given)
        assert one.image == name
        assert [panel.tobytes() for panel in one.panels] == [panel.tobytes() for panel in reference.panels], given
    mixed = paint([array, path, opened, picture(3)])
    assert [one.image for one in mixed] == ["image-0", str(path), f"{path} (2)", "image-3"]
    assert (mixed[0].original == mixed[1].original).all()
    assert (mixed[0].mask != mixed[1].mask).any()  # another place
    grey = Image.open(path).convert("L")
    assert (paint(np.asarray(grey))[0].original == paint(grey)[0].original).all()
    deep = Image.fromarray((np.arange(1024).reshape(32, 32) * 64).astype(np.uint16))
    deep.save(tmp_path / "deep.png")
    assert (paint(deep)[0].original == paint(tmp_path / "deep.png")[0].original).all()
    assert paint(opened.convert("CMYK"))[0].original.shape == (32, 32, 3)


@pytest.mark.parametrize(
    "given",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((2, 8, 8, 5), np.uint8),
        np.zeros(8, np.uint8),
        {"image": 1},
        None,
    ],
    ids=["float", "channels first", "channels", "line", "mapping", "nothing"],
)
def test_what_is_no_image(given: Any) -> None:
    with refuses("bad-argument"):
        images_of(given)


def test_nothing_is_given() -> None:
    for given in ([], "gone.png", "*.gone"):
        with pytest.raises(Problem):
            images_of(given)


def test_a_broken_image_is_named_and_the_others_are_done(there: Path, tmp_path: Path) -> None:
    for number in (0, 2):
        write(tmp_path / "in" / f"{number}.png", number)
    (tmp_path / "in" / "1.png").write_bytes(b"no image")
    made = pipeline(MIM, there / "norm.safetensors", "numpy", batch_size=2)(tmp_path / "in")
    assert [bool(one.problem) for one in made] == [False, True, False]
    assert made[1].original.size == 0
    assert [path.name for path in made.save(tmp_path / "out")] == ["0.png", "2.png"]
    alone = pipeline(MIM, there / "norm.safetensors", "numpy")(tmp_path / "in" / "1.png")
    assert alone[0].problem
    assert alone.save(tmp_path / "none") == []


def test_a_loaded_model_is_taken_as_it_is(framework: str, there: Path) -> None:
    model = ViTMAEForPreTraining.from_pretrained(there / "norm.safetensors", framework, verbose=False)
    made = pipeline(MIM, model)(there / "photos")
    for one, other in zip(made, pipeline(MIM, there / "norm.safetensors", framework)(there / "photos")):
        assert [panel.tobytes() for panel in one.panels] == [panel.tobytes() for panel in other.panels]
        assert one.mask.mean() == 0.5
    with refuses("bad-argument"):
        pipeline(MIM, model, image_size=64)
    with pytest.raises(Problem, match=r"polymae\.load"):
        pipeline(MIM, object())


def test_classes_are_those_of_predict(framework: str, there: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    photos = there / "photos"
    expected = predict(framework, photos, there / "tuned.pth", model=MODEL, names=tmp_path / "names.txt", topk=2)
    classify = pipeline("image_classification", there / "tuned.pth", framework, model_config=MODEL, topk=2)
    assert classify(photos, names=str(tmp_path / "names.txt")) == expected
    assert [len(one.top) for one in classify(photos, topk=3)] == [3] * 4
    loaded = ViTForImageClassification.from_pretrained(there / "tuned.pth", framework, model=MODEL, verbose=False)
    in_memory = [np.asarray(Image.open(one.image)) for one in expected]
    found = pipeline("image_classification", loaded, names=tmp_path / "names.txt", topk=2)(in_memory)
    assert [one.top for one in found] == [one.top for one in expected]


def test_a_runs_own_statistics_and_ratio_are_used(tmp_path: Path, there: Path) -> None:
    recipe = read_recipe(None, (*SETTINGS, "steps=1", "mask_ratio=0.5", "mean=[0.1,0.2,0.3]", "std=[0.5,0.6,0.7]"))
    pretrain("numpy", tiny_data(tmp_path / "data"), tmp_path / "run", recipe)
    model = ViTMAEForPreTraining.from_pretrained(tmp_path / "run", "numpy")
    photos, paintings = there / "photos", []
    for source in (tmp_path / "run", model, model.save_pretrained(tmp_path / "saved")):
        made = pipeline(MIM, source, "numpy")(photos)
        assert [one.mask.mean() for one in made] == [0.5] * 4
        paintings.append([one.reconstruction.tobytes() for one in made])
    assert paintings[0] == paintings[1] == paintings[2]
    other = pipeline(MIM, tmp_path / "run", "numpy", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))(photos)
    assert [one.reconstruction.tobytes() for one in other] != paintings[0]
    assert reconstruct("numpy", photos, tmp_path / "run", mask_ratio=0.25)[0].mask.mean() == 0.25


def test_a_published_decoder_of_normalised_patches_is_known(
    server: Server, tmp_path: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYMAE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("POLYMAE_REGISTRY", str(publish(tmp_path / "served", f"{server.base}/")))
    monkeypatch.delenv("POLYMAE_MIRROR", raising=False)
    for path in FILES.values():
        server.add(f"/{path}", (tmp_path / "served" / path).read_bytes())
    for name, norm in (("mae_pretrain_vit_test_full", True), ("mae_visualize_vit_test", False)):
        paint = pipeline(MIM, name, "numpy")
        assert paint.model.config.norm_pix_loss is norm
    assert (
        paint.model.runtime.weights(paint.model.model)["norm.bias"].tobytes()
        == WEIGHTS["visualize"]["norm.bias"].tobytes()
    )
    with refuses("does-not-fit"):  # an encoder paints nothing: never with a random decoder
        pipeline(MIM, "mae_pretrain_vit_test", "numpy")(there / "photos")
    with refuses("does-not-fit"):
        pipeline(MIM, "mae_finetuned_vit_test", "numpy")(there / "photos")
    server.files.clear()
    monkeypatch.setenv("POLYMAE_HOME", str(tmp_path / "another"))
    monkeypatch.setenv("POLYMAE_OFFLINE", "1")
    with pytest.raises(Problem):
        pipeline(MIM, "mae_visualize_vit_test", "numpy")


def test_images_of_one_channel_and_other_sides(tmp_path: Path, there: Path) -> None:
    config = model_config(AUTOENCODER, in_chans=1, img_size=(16, 40), norm_pix_loss=True)
    write_checkpoint("numpy", tmp_path / "grey.npz", config, initial_weights(config, 1), source={"name": "x"})
    made = pipeline(MIM, tmp_path / "grey.npz", "numpy")(there / "photos")
    assert all(panel.shape == (16, 40, 1) for one in made for panel in one.panels)
    assert made[0].mask.shape == (2, 5)
    assert Image.open(made.save(tmp_path / "out")[0]).mode == "L"


def test_errors_say_what_to_use_instead(there: Path) -> None:
    for options, use in (
        ({"backend": "ms"}, "framework="),
        ({"mask_ration": 1}, "mask_ratio"),
        ({"tokenizer": 1}, "nothing"),
    ):
        with pytest.raises(Problem, match=use):
            pipeline(MIM, there / "norm.safetensors", "numpy", **options)
    with pytest.raises(Problem, match="image_classification"):
        pipeline("image-classification", there / "norm.safetensors", "numpy")
    with pytest.raises(Problem, match="topk"):
        pipeline("image_classification", there / "tuned.pth", "numpy", model_config=MODEL)(there, top_k=3)
    assert module.save([], there / "nothing") == []
