"""Fine-tunings and probes that take a second: the crops and the model of tiny_run.py, as a classifier, and all that is drawn."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tiny_run import SETTINGS as PRETRAINING
from tiny_run import tiny_data

from polymae.training.classifying import FineTuning, Probe
from polymae.training.pretrain import pretrain
from polymae.training.reading import Kind, as_yaml, read_recipe

MODEL = "img_size=16,patch_size=4,embed_dim=16,depth=2,num_heads=2"
AUTOENCODER = f"{MODEL},decoder_embed_dim=16,decoder_depth=1,decoder_num_heads=2"
_BOTH = (
    f"model={MODEL}", "batch_size=10", "epochs=3", "warmup_epochs=1", "workers=0", "tensorboard=false",
    "save_every_epochs=null", "keep_best=false", "scale=[0.5, 1.0]",
)  # fmt: skip
SETTINGS = {
    FineTuning: (*_BOTH, "lr=1e-3", "mixup=0.8", "cutmix=1.0", "drop_path=0.2", "ema=0.9"),
    Probe: (*_BOTH, "lr=0.5"),
}


def tiny_tuning(kind: type[Kind], *settings: str) -> Kind:
    """The recipe, with other settings: 4 steps an epoch, 12 in all."""
    return read_recipe({"task": kind.task}, (*SETTINGS[kind], *settings), kind)


def labelled(folder: Path) -> Path:
    """A data set with 40 images in train and the same, fewer, in val."""
    tiny_data(folder / "train")
    for name in ("class0/00.png", "class0/02.png", "class1/01.png", "class1/03.png", "class1/05.png"):
        path = folder / "val" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "train" / name, path)
    return folder


def pretrained_for_two_steps(data: Path, out: Path) -> Path:
    """The folder `out` of such a run in NumPy, of the autoencoder on that classifier's encoder."""
    pretrain("numpy", data, out, read_recipe(None, (*PRETRAINING, f"model={AUTOENCODER}", "lr=0.01", "steps=2")))
    return out


def command(kind: type[Kind], framework: str, data: Path, out: Path, *options: str) -> list[str]:
    """The arguments of Python that train in a process of its own."""
    path = out.parent / f"{kind.task}.yaml"
    path.write_text(as_yaml(tiny_tuning(kind)))
    return [
        sys.executable, "-m", "polymae", kind.task, "--framework", framework, "--data", str(data), "--out", str(out),
        "--threads", "1", "--recipe", str(path), *options,
    ]  # fmt: skip
