"""How fast batches are made, beside what Pillow's own decoding and resizing takes of it.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/data.py --out docs/benchmarks/data.md

Photographs of 500 x 375 pixels in JPEG files, as ImageNet's are on average, become batches of 224 x 224 by the official
pre-training's augmentation, with masking noise. The jobs take turns, and each one's best repetition counts: images by the
second, and images by the second of a processor, which other work on the machine disturbs least. `Pillow alone` opens, decodes,
crops the same boxes and resizes them, and makes arrays of bytes: nothing of ours. torchvision's transforms draw their own boxes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, features

from polymae.compare.record.environment import processor
from polymae.data.augment import Augmentation, random_resized_crop_box
from polymae.data.batches import Batches
from polymae.data.datasets import open_dataset
from polymae.data.draws import generator
from polymae.data.images import demo_photographs

BATCH, STEPS = 64, 4
FORMATS = ("folder", "tar", "parquet")


@dataclass
class Job:
    """Work on so many images, and the most of them by the second and by the second of a processor."""

    name: str
    images: int
    work: Callable[[], object]
    walls: list[float] = field(default_factory=list)
    processors: list[float] = field(default_factory=list)

    def run(self) -> None:
        """Once more."""
        wall, used = time.perf_counter(), time.process_time()
        self.work()
        self.walls.append(self.images / (time.perf_counter() - wall))
        self.processors.append(self.images / (time.process_time() - used))


def make(folder: Path) -> None:
    """The photographs: parts of the package's, with a camera's noise, so that files have about ImageNet's size."""
    rng = np.random.default_rng(0)
    photographs = [Image.open(path).convert("RGB") for path in demo_photographs()]
    for number in range(BATCH * STEPS):
        photograph = photographs[number % len(photographs)]
        scale = max(500 / photograph.width, 375 / photograph.height) * rng.uniform(1.0, 1.5)
        large = photograph.resize((round(photograph.width * scale) + 1, round(photograph.height * scale) + 1))
        left, top = (int(rng.integers(most + 1)) for most in (large.width - 500, large.height - 375))
        pixels = np.asarray(large.crop((left, top, left + 500, top + 375)), np.float64)
        noisy = (pixels + rng.normal(0, 8, pixels.shape)).clip(0, 255).astype(np.uint8)
        path = folder / "folder" / f"class{number % 4}" / f"{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy).save(path, quality=90)
    pack(folder)


def pack(folder: Path) -> None:
    """The same files in a tar file and in a parquet file."""
    import tarfile

    import pyarrow
    import pyarrow.parquet

    dataset = open_dataset(folder / "folder")
    (folder / "tar").mkdir()
    (folder / "parquet").mkdir()
    with tarfile.open(folder / "tar" / "0.tar", "w") as made:
        for index in range(len(dataset)):
            for ending, data in (("jpg", dataset.read(index)), ("cls", str(dataset.label(index)).encode())):
                member = tarfile.TarInfo(f"{index:05}.{ending}")
                member.size = len(data)
                made.addfile(member, BytesIO(data))
    everything = range(len(dataset))
    table = pyarrow.table(
        {"image": [dataset.read(i) for i in everything], "label": [dataset.label(i) for i in everything]}
    )
    pyarrow.parquet.write_table(table, folder / "parquet" / "0.parquet", row_group_size=100)


def pillow_alone(batches: Batches) -> None:
    """Decode, crop and resize the images of the steps, with nothing of ours but the boxes."""
    for step in range(STEPS):
        epoch, position = batches.epoch_and_position(step)
        for place, index in enumerate(batches.indices(step).tolist(), position * BATCH):
            with Image.open(batches.dataset.path / batches.dataset.name(index)) as opened:
                image = opened.convert("RGB")
            drawn = generator(batches.seed, "crop", epoch, place)
            top, left, height, width = random_resized_crop_box(drawn, image.height, image.width)
            np.asarray(image.crop((left, top, left + width, top + height)).resize((224, 224), Image.Resampling.BICUBIC))


def ours(batches: Batches, workers: int) -> None:
    """Make the batches of the steps."""
    with batches.loader(0, STEPS, workers) as loader:
        for _ in loader:
            pass


def torchvisions(folder: Path) -> Callable[[], None]:
    """The same by torchvision's transforms and torch's loader, in this process."""
    import torch
    from torchvision import datasets, transforms

    torch.set_num_threads(1)
    steps = [
        transforms.RandomResizedCrop(224, (0.2, 1.0), interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
    dataset = datasets.ImageFolder(str(folder / "folder"), transforms.Compose(steps))

    def work() -> None:
        for _ in torch.utils.data.DataLoader(dataset, BATCH, shuffle=True, num_workers=0):
            pass

    return work


def digits(folder: Path) -> Batches:
    """Digits of 28 x 28 pixels in an array, moved at random."""
    imgs = np.random.default_rng(0).integers(0, 256, (BATCH * STEPS * 8, 28, 28), dtype=np.uint8)
    np.savez(folder / "digits.npz", imgs=imgs, labels=np.arange(len(imgs)) % 10)
    moved = Augmentation(28, "shift", flip=0, channels=1, mean=(0.13,), std=(0.31,))
    return Batches(open_dataset(folder / "digits.npz"), moved, BATCH * 8, 0, 49)


def jobs(folder: Path) -> list[Job]:
    """Everything that is measured."""
    of_format = {name: Batches(open_dataset(folder / name), Augmentation(), BATCH, 0, 196) for name in FORMATS}
    batches, small, count = of_format["folder"], digits(folder), BATCH * STEPS
    listed = [Job("Pillow alone", count, lambda: pillow_alone(batches))]
    for workers in (0, 1, 2):
        listed.append(Job(f"folder, {workers} workers", count, partial(ours, batches, workers)))
    for name in FORMATS[1:]:
        listed.append(Job(f"{name}, 0 workers", count, partial(ours, of_format[name], 0)))
    listed.append(Job("torchvision, 0 workers", count, torchvisions(folder)))
    listed.append(Job("digits of an .npz, 0 workers", len(small.dataset), lambda: ours(small, 0)))
    return listed


def page(listed: list[Job], repetitions: int, size: int) -> str:
    """The table, with the machine and the versions."""
    base = max(listed[0].processors)
    rows = [
        f"| {job.name} | {max(job.processors):.0f} | {'' if 'digits' in job.name else f'{max(job.processors) / base:.2f}'} | "
        f"{max(job.walls):.0f} | {min(job.walls):.0f} |"
        for job in listed
    ]
    turbo = features.version("libjpeg_turbo") if features.check("libjpeg_turbo") else "none"
    return (
        f"# How fast batches are made\n\nMeasured by `benchmarks/data.py` ({repetitions} repetitions, taking turns; the best "
        f"counts) on {processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release().split('-')[0]}, with a load "
        f"of {os.getloadavg()[1]:.1f} by other work, files in the page cache. Python {platform.python_version()}, numpy "
        f"{version('numpy')}, Pillow {version('pillow')} with libjpeg-turbo {turbo}, torchvision {version('torchvision')}, "
        f"pyarrow {version('pyarrow')}. JPEG files of 500 x 375 pixels and {size // 1000} kB on average to 224 x 224.\n\n"
        "| | images/s of a processor | times Pillow alone | images/s, best | images/s, worst |\n|---|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n"
    )


def main() -> None:
    """Measure and print; write the table to --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--out", type=Path, help="a Markdown file for the table")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make(folder)
        listed = jobs(folder)
        for job in listed:
            job.work()  # has the files in memory
        for _ in range(args.repetitions):
            for job in listed:
                job.run()
        size = sum(open_dataset(folder / "folder").sizes()) // (BATCH * STEPS)
    text = page(listed, args.repetitions, size)
    print(text)
    print(json.dumps({job.name: job.processors for job in listed}))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text)


if __name__ == "__main__":
    main()
