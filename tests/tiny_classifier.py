"""A small classifier's file in the official layout, whose predictions differ, and labelled images for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from made_images import picture, write

from polymae.backends.initial import initial_weights
from polymae.backends.presets import model_config
from polymae.backends.runtime import load_backend
from polymae.convert.writing import official_checkpoint
from polymae.data.augment import Augmentation

SIZES = "img_size=32,patch_size=8,embed_dim=48,depth=2,num_heads=3"
CLASSES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")
MODEL = f"{SIZES},num_classes={len(CLASSES)},pooling=gap"
AUTOENCODER = f"{SIZES},decoder_embed_dim=32,decoder_depth=1,decoder_num_heads=4"
COUNT = 6  # images of a class


def classifier(path: Path, model: str = MODEL, seed: int = 1) -> Path:
    """Its file, with a head that tells the features of such images apart, so that predictions are spread over the classes."""
    config = model_config(model)
    rng = np.random.default_rng(seed)
    weights = dict(initial_weights(config, seed))
    for name, array in weights.items():
        if name != "pos_embed":
            weights[name] = (array + 0.3 * rng.standard_normal(array.shape)).astype(np.float32)
    runtime = load_backend("numpy")
    prepare = Augmentation(config.img_size, crop="centre", flip=0.0)
    imgs = np.stack([prepare(picture(1000 + number), 0, 0, 0) for number in range(32)])
    features = runtime.build(config, weights).encode(imgs)
    head = rng.standard_normal(weights["head.weight"].shape) / features.std(axis=0)
    weights["head.weight"] = (head / 4).astype(np.float32)
    weights["head.bias"] = -weights["head.weight"] @ features.mean(axis=0).astype(np.float32)
    official_checkpoint(path, config, weights)
    return path


def autoencoder(path: Path) -> Path:
    config = model_config(AUTOENCODER)
    official_checkpoint(path, config, initial_weights(config, 2))
    return path


def evaluated(folder: Path) -> Path:
    """A folder with data/val, images of these classes, and tuned.pth, the classifier."""
    images(folder / "data" / "val")
    classifier(folder / "tuned.pth")
    return folder


def images(folder: Path, classes: tuple[str, ...] = CLASSES, count: int = COUNT, first: int = 0) -> Path:
    """A folder for each class, of images in several sizes."""
    for label, name in enumerate(classes):
        for number in range(count):
            place = first + label * count + number
            write(folder / name / f"{number}.png", place, height=30 + place % 5 * 7, width=34 + place % 3 * 11)
    return folder
