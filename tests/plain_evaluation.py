"""An evaluation as one writes it with timm: its ViT with a file's weights, the official transform, the official averages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from children import run_in

_SCRIPT = """
import json, torch
from functools import partial
from PIL import Image
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from timm.utils import accuracy, AverageMeter
given = json.loads({given!r})
model = VisionTransformer(**given["model"], global_pool="avg", qkv_bias=True, fc_norm=True,
    norm_layer=partial(torch.nn.LayerNorm, eps=1e-6))
file = given["weights"]
model.load_state_dict(load_file(file) if file.endswith(".safetensors") else torch.load(file, weights_only=True)["model"])
model.eval()
size, mode = given["model"]["img_size"], "L" if given["model"].get("in_chans") == 1 else "RGB"
mean, std = (torch.tensor(given[name])[:, None, None] for name in ("mean", "std"))
imgs, labels = [], []
for path, label in given["images"]:
    image = Image.open(path).convert(mode)
    short = int(size / (224 / 256))
    width, height = image.size
    resized = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    image = image.resize(resized, Image.BICUBIC)
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    pixels = torch.frombuffer(bytearray(image.crop((left, top, left + size, top + size)).tobytes()), dtype=torch.uint8)
    imgs.append((pixels.reshape(size, size, -1).permute(2, 0, 1).float() / 255 - mean) / std)
    labels.append(label)
imgs, labels = torch.stack(imgs), torch.tensor(labels)
top1, top5, losses, each, predictions = AverageMeter(), AverageMeter(), [], [], []
with torch.no_grad():
    for part, truth in zip(imgs.split(given["batch"]), labels.split(given["batch"])):
        logits = model(part)
        one, five = accuracy(logits, truth, topk=(1, 5))
        top1.update(one.item(), len(part)), top5.update(five.item(), len(part))
        losses.append(torch.nn.functional.cross_entropy(logits, truth).item())
        each += torch.nn.functional.cross_entropy(logits.double(), truth, reduction="none").tolist()
        predictions += logits.argmax(1).tolist()
print(json.dumps(dict(top1=top1.avg, top5=top5.avg, official=sum(losses) / len(losses), loss=sum(each) / len(each),
    predictions=predictions)))
"""


def plain_evaluation(
    weights: Path,
    images: Sequence[tuple[Path, int]],
    batch: int,
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
    **model: int,
) -> dict[str, Any]:
    """Its top1 and top5 in percent, loss, official loss in nats, and the predicted class of each image. model: timm's words."""
    given = {"weights": str(weights), "images": [(str(path), label) for path, label in images], "batch": batch, "mean": mean,
             "std": std, "model": model}  # fmt: skip
    result: dict[str, Any] = json.loads(run_in("torch", _SCRIPT.format(given=json.dumps(given))))
    return result
