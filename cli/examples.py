"""Command lines: the examples at the end of every --help. A test parses each of them."""

from __future__ import annotations

import argparse
from typing import Any

EXAMPLES = {
    "polymae": (
        "polymae doctor",
        "polymae compare -m mae_vit_test_patch8",
        "polymae inspect mae_visualize_vit_base.pth",
    ),
    "polymae inspect": (
        "polymae inspect checkpoint-799.pth",
        "polymae inspect checkpoint-799.pth -m vit_base_patch16 --tensors",
        "polymae inspect byol.ckpt --prefix online.backbone",
    ),
    "polymae dialects": ("polymae dialects",),
    "polymae diff": ("polymae diff mae.pth mae.ckpt", "polymae diff before.pth after.pth --json"),
    "polymae probe": (
        "polymae probe --dialect official --format pth -o probe.pth",
        "polymae probe --check converted.npz",
    ),
    "polymae record": ("polymae record --framework torch --inputs inputs.npz --weights mae.pth --out torch.npz",),
    "polymae compare": (
        "polymae compare -m mae_vit_base_patch16 --images demo/photos/*.jpg --out reports/",
        "polymae compare --weights mae.pth --frameworks torch,mindspore",
        "polymae compare --traces oracle.npz twin1.npz twin2.npz candidate.npz",
    ),
    "polymae run": (
        "polymae run run_mae_vit_base_p16_224_800ep.yaml --framework mindspore --train_dataset_dir imagenet/train",
        "polymae run run_vit_base_p16_224_100ep.yaml --run_mode finetune --load_checkpoint mae_pretrain_vit_base",
        "polymae run run_mae_vit_base_p16_224_800ep.yaml --run_mode predict --predict_data photos/ --output_dir painted",
    ),
    "polymae runs": ("polymae runs compare torch-run mindspore-run",),
    "polymae runs compare": (
        "polymae runs compare RUN --reference small-cpu --out reports/",
        "polymae runs compare torch-run mindspore-run",
    ),
    "polymae pretrain": (
        "polymae pretrain --framework torch --data imagenet/ --out runs/base --recipe official-base --device cuda",
        "polymae pretrain --framework mindspore --data photos/ --out runs/small --set model=mae_vit_tiny_patch16 batch_size=64",
        "polymae pretrain --resume runs/small",
        "polymae pretrain --resume checkpoint-20.pth --framework oneflow --data imagenet/ --out runs/on",
    ),
    "polymae finetune": (
        "polymae finetune --framework torch --data imagenet/ --weights mae_pretrain_vit_base --out runs/tuned --device cuda",
        "polymae finetune --framework oneflow --data mnist-10k --weights runs/digits --out runs/on --recipe small-cpu-finetune",
        "polymae finetune --resume runs/tuned",
    ),
    "polymae linprobe": (
        "polymae linprobe --framework torch --data imagenet/ --weights mae_pretrain_vit_base --out runs/probe --device cuda",
        "polymae linprobe --framework numpy --data mnist-10k --weights runs/digits --out runs/probe --recipe small-cpu-linprobe",
    ),
    "polymae evaluate": (
        "polymae evaluate --framework torch --data imagenet/ --weights mae_finetuned_vit_base --device cuda",
        "polymae evaluate --framework mindspore --data imagenet-a/ --weights tuned.pth --class-map wnids.txt --json",
        "polymae evaluate --framework oneflow --data imagenet/ --weights tuned.pth --processes 4 --threads 2 --crop-ratio 0.9",
        "polymae evaluate --framework torch --data imagenet/ --weights tuned.pth --part 1/2 --scores 1.npz",
        "polymae evaluate --merge 1.npz 2.npz --out result.json --confusion confusion.png",
    ),
    "polymae predict": (
        "polymae predict cat.jpg --framework torch --weights mae_finetuned_vit_base --names imagenet-classes.txt",
        "polymae predict photos/ --framework oneflow --weights mae_visualize_vit_base --features photos.npy",
    ),
    "polymae knn": (
        "polymae knn --framework torch --data imagenet/ --weights mae_pretrain_vit_base",
        "polymae knn --framework mindspore --data mnist-10k --weights runs/digits -k 10",
    ),
    "polymae recipes": ("polymae recipes", "polymae recipes official-base --set epochs=100 > mine.yaml"),
    "polymae preflight": (
        "polymae preflight --framework torch --data imagenet/train --recipe official-base --out reports/",
        "polymae preflight --framework mindspore --data mnist.npz --recipe small-cpu --only optimizer,schedule",
    ),
    "polymae profile": ("polymae profile --frameworks torch,mindspore", "polymae profile --operations softmax,gelu"),
    "polymae models": ("polymae models",),
    "polymae weights": ("polymae weights list", "polymae weights download mae_visualize_vit_base"),
    "polymae weights list": ("polymae weights list",),
    "polymae weights path": ("polymae weights path mae_visualize_vit_base",),
    "polymae weights download": ("polymae weights download mae_visualize_vit_base",),
    "polymae weights verify": ("polymae weights verify",),
    "polymae weights clear": ("polymae weights clear mae_visualize_vit_base",),
    "polymae data": ("polymae data list", "polymae data get mnist-10k", "polymae data show photos/"),
    "polymae data list": ("polymae data list",),
    "polymae data get": (
        "polymae data get mnist-10k",
        "polymae data get elpv --from elpv_dataset-1.0.0.post1-py3-none-any.whl",
    ),
    "polymae data show": (
        "polymae data show imagenet/ --split val",
        "polymae data show photos.csv --check",
        "polymae data show shards/ --data-format tar --json",
    ),
    "polymae env": ("polymae env add oneflow", "polymae env list"),
    "polymae env add": ("polymae env add oneflow", "polymae env add megengine oneflow"),
    "polymae env use": ("polymae env use oneflow ~/miniconda3/envs/oneflow/bin/python",),
    "polymae env list": ("polymae env list",),
    "polymae env path": ("polymae env path oneflow",),
    "polymae env remove": ("polymae env remove oneflow",),
    "polymae doctor": ("polymae doctor", "polymae doctor --framework torch --json"),
    "convert_weights": (
        "convert_weights mindspore -c mae_visualize_vit_base.pth",
        "convert_weights torch -c mae.ckpt -o mae.pth",
        "convert_weights numpy -c tiny.pth -m vit_tiny_patch16,num_heads=12 -o tiny.npz",
    ),
}


# The meaning of exit statuses, where there are more than 0 for done and 2 for a problem.
_STATUS = {
    "polymae compare": "0 parity, 1 a fault, 2 something could not be compared, 3 a trace is incomplete",
    "polymae pretrain": "0 for done, 75 saved and ended by SIGTERM or SIGUSR1, 130 by Ctrl-C",
    "polymae predict": "0 for done, 1 where an image could not be decoded",
    "polymae preflight": "0 all is right, 1 a check failed, 2 one could not run",
    "polymae data show": "0 for done, 1 where --check found a broken image",
    "polymae runs compare": "0 the same within roundoff, 1 a run parts, 2 one could not be compared",
    "polymae doctor": "0 every framework asked for works, 1 at least one does not",
}


def shown_in(prog: str, *more: str) -> dict[str, Any]:
    """Keywords of a parser that shows the examples of a command. more: those of a command that has none in the table."""
    listed = "\n".join(f"  {line}" for line in (*EXAMPLES.get(prog, ()), *more))
    status = f"\n\nexit status: {_STATUS[prog]}" if prog in _STATUS else ""
    return {"epilog": f"examples:\n{listed}{status}", "formatter_class": argparse.RawDescriptionHelpFormatter}
