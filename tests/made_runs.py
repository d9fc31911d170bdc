"""Runs of a tiny recipe in NumPy, right ones and ones with a planted fault, and the reference that is made of right ones."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from polymae.backends.numpy.sums import summed_in_chains
from polymae.compare.runs.reference import reference_of, write_reference
from polymae.compare.runs.run import read_run
from polymae.training.pretrain import Request, run_request
from polymae.training.reading import read_recipe
from polymae.training.recipe import Recipe

STEPS, PER_EPOCH = 12, 4
SETTINGS = (
    "model=img_size=8,patch_size=2,in_chans=1,embed_dim=8,depth=1,num_heads=2,decoder_embed_dim=8,decoder_depth=1,"
    "decoder_num_heads=2",
    "crop=none", "flip=0", "mean=[0.4]", "std=[0.3]", "batch_size=8", "epochs=3", "warmup_epochs=1", "lr=0.01", "workers=0",
    "save_every_epochs=null", "tensorboard=false", "pictures_every_epochs=null",
)  # fmt: skip


def tiny_recipe(*settings: str) -> Recipe:
    """Three epochs of four steps, the learning rate 0 at the first of them."""
    return read_recipe({}, [*SETTINGS, *settings])


def write_images(folder: Path, seed: int = 0) -> Path:
    """32 grey images as .npz."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (32, 4, 4), dtype=np.uint8)
    np.savez(folder / "images.npz", images=coarse.repeat(2, axis=1).repeat(2, axis=2))
    return folder / "images.npz"


def train(data: Path, out: Path, *settings: str, twin: int = 0, **options: Any) -> Path:
    """A run in NumPy, or another framework; twin: one that sums in chains."""
    framework = options.pop("framework", "numpy")
    with summed_in_chains(twin) if twin else nullcontext():
        run_request(Request(framework, data, out, tiny_recipe(*settings), **options))
    return out


def write_tiny_reference(data: Path, folder: Path) -> Path:
    """A reference as benchmarks/references.py makes it."""
    oracle = train(data, folder / "oracle", dtype="float64")
    twins = [train(data, folder / f"twin{seed}", twin=seed) for seed in (1, 2, 3)]
    whole = train(data, folder / "whole")
    seeds = [train(data, folder / f"seed{seed}", f"seed={seed}") for seed in (1, 2)]
    read = [[read_run(one) for one in kind] for kind in (twins, seeds)]
    path = folder / "tiny.json"
    write_reference(path, reference_of("tiny", read_run(oracle), read[0], read_run(whole), read[1], {"by": "tests"}))
    return path
