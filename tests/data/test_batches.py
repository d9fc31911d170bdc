"""A step's batch: the same bytes for any worker, part and first step, and each image once in an epoch."""

from __future__ import annotations

import contextlib
import itertools
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from made_images import folder_of_classes, write
from PIL import Image

from polymae.data.augment import Augmentation
from polymae.data.batches import Batches
from polymae.data.dataset import Dataset
from polymae.data.datasets import open_dataset
from polymae.data.draws import mask_noise
from polymae.data.images import BrokenImage
from polymae.files.errors import Problem

SMALL = Augmentation(input_size=16)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(folder_of_classes(tmp_path_factory.mktemp("set")))


@pytest.fixture
def batches(dataset: Dataset) -> Batches:
    return Batches(dataset, SMALL, 4, seed=1, num_patches=4)


def equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(
        (one[name].dtype, one[name].tobytes()) == (other[name].dtype, other[name].tobytes()) for name in one
    )


def test_a_batch_is_what_its_parts_say(batches: Batches, dataset: Dataset) -> None:
    batch = batches.batch(4)  # the second of the second epoch
    assert {name: (array.dtype.name, array.shape) for name, array in batch.items()} == {
        "imgs": ("float32", (4, 3, 16, 16)),
        "noise": ("float32", (4, 4)),
        "labels": ("int64", (4,)),
    }
    assert (batches.steps_per_epoch, batches.epoch_and_position(4)) == (3, (1, 1))
    for row, index in enumerate(batches.indices(4).tolist()):
        assert batch["labels"][row] == dataset.label(index)
        assert np.array_equal(batch["noise"][row], mask_noise(1, 1, 4 + row, 4))
        with Image.open(dataset.path / dataset.name(index)) as image:
            assert np.array_equal(batch["imgs"][row], SMALL(image.convert("RGB"), 1, 1, 4 + row))


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("first", [0, 1, 5])
def test_workers_and_the_first_step_change_nothing(batches: Batches, workers: int, first: int) -> None:
    with batches.loader(first, 9, workers, depth=3) as loader:
        for expected, (step, batch) in zip(range(first, 9), loader):
            assert step == expected
            assert equal(batch, batches.batch(step))
        assert step == 8
        with pytest.raises(StopIteration):
            next(loader)
        assert loader.waited > 0


def test_parts_make_up_the_batch(batches: Batches) -> None:
    whole = batches.batch(2)
    for cuts in ((0, 4), (0, 2, 4), (0, 1, 2, 3, 4), (0, 3, 4)):
        for start, stop in itertools.pairwise(cuts):
            expected = {name: array[start:stop] for name, array in whole.items()}
            assert equal(batches.part(2, start, stop), expected)
            with batches.loader(2, 3, 2, start=start, stop=stop) as loader:
                assert equal(next(loader)[1], expected)


def test_an_epoch_has_every_image_once(dataset: Dataset) -> None:
    batches = Batches(dataset, SMALL, 4, seed=1, drop_last=False)
    assert batches.steps_per_epoch == 4
    for epoch in range(3):
        seen = np.concatenate([batches.indices(epoch * 4 + position) for position in range(4)])
        assert sorted(seen) == list(range(15))
    assert len(batches.batch(3)["imgs"]) == batches.size(3) == 3
    in_order = Batches(dataset, SMALL, 4, seed=1, drop_last=False, shuffle=False)
    assert np.concatenate([in_order.indices(step) for step in range(4)]).tolist() == list(range(15))
    assert "noise" not in in_order.batch(0)


def test_the_digest_sees_a_loader_that_repeats_images(batches: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    known = batches.digest(range(4))
    assert known == batches.digest(4) != batches.digest(range(1, 5))
    assert Batches(batches.dataset, SMALL, 4, seed=2, num_patches=4).digest(range(4)) != known
    monkeypatch.setattr(Batches, "epoch_and_position", lambda self, step: (0, step % 3))  # the epoch does not count
    assert batches.digest(range(3)) != known
    assert batches.digest(range(4)) != known
    monkeypatch.undo()
    assert batches.digest(range(4)) == known


def test_a_batch_that_no_epoch_fills_is_refused(dataset: Dataset) -> None:
    with pytest.raises(Problem, match="at most 15 fits"):
        Batches(dataset, SMALL, 16, seed=0)
    with pytest.raises(Problem, match="at least"):
        Batches(dataset, SMALL, 0, seed=0)
    assert Batches(dataset, SMALL, 16, seed=0, drop_last=False).batch(0)["imgs"].shape[0] == 15


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_broken_image_is_named_and_skipped_if_asked(workers: int, tmp_path: Path) -> None:
    dataset = open_dataset(folder_of_classes(tmp_path))
    broken = tmp_path / "dog" / "4.png"
    broken.write_bytes(broken.read_bytes()[:200])
    batches = Batches(dataset, SMALL, 15, seed=1)
    before = threading.active_count()
    with pytest.raises(BrokenImage, match="^dog/4.png"), batches.loader(0, 1, workers) as loader:
        next(loader)
    assert threading.active_count() == before
    skipping = Batches(dataset, SMALL, 15, seed=1, skip_broken=True)
    with skipping.loader(0, 1, workers) as loader:
        ((_, batch),) = loader
    place = int(np.flatnonzero(skipping.indices(0) == 9)[0])
    assert list(skipping.broken) == ["dog/4.png"]
    assert batch["labels"][place] == 2  # the next image is the first of the next class
    assert np.array_equal(batch["imgs"][place], SMALL(dataset.image(10), 1, 0, place))
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(Problem, match="None of the 15 images"):
        skipping.batch(0)


def test_closing_early_leaves_no_thread(batches: Batches) -> None:
    before = threading.active_count()
    loader = batches.loader(0, 1000, 3, depth=4)
    with contextlib.suppress(KeyboardInterrupt), loader:
        next(loader)
        raise KeyboardInterrupt
    assert threading.active_count() == before
    with pytest.raises(Problem, match="closed"):
        next(loader)


def test_ctrl_c_ends_a_process_that_waits_for_a_batch(tmp_path: Path) -> None:
    folder_of_classes(tmp_path)
    code = (
        "import sys, time\n"
        "from polymae.data import augment, batches, datasets\n"
        "dataset = datasets.open_dataset(sys.argv[1])\n"
        "read = dataset.read\n"
        "dataset.read = lambda index: time.sleep(0.2) or read(index)\n"
        "made = batches.Batches(dataset, augment.Augmentation(16), 15, 0)\n"
        "with made.loader(0, 10**6, 2, depth=8) as loader:\n"
        "    next(loader)\n"  # by then no thread imports any more, which would hide the signal from Python's exit status
        "    print('begun', flush=True)\n"
        "    for _ in loader: pass\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)  # eight batches would be made until then, and ever more
    assert process.returncode == -signal.SIGINT
    assert said.strip().endswith("KeyboardInterrupt")


def test_an_image_of_another_size_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.png")
    batches = Batches(open_dataset(tmp_path), Augmentation(input_size=16, crop="none"), 1, seed=0)
    with pytest.raises(Problem, match="a.png of .*: An image of 32 x 24 pixels"):
        batches.batch(0)
