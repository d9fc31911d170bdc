"""Images as one array in an .npz file: small sets, such as digits."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..files.errors import Problem
from .dataset import Dataset, numbered_classes

if TYPE_CHECKING:
    from PIL import Image

# Names of the images and of the labels; the later ones as Keras writes its mnist.npz.
_NAMES = {
    "train": (("imgs", "labels"), ("images", "labels"), ("x_train", "y_train")),
    "val": (("imgs", "labels"), ("images", "labels"), ("x_test", "y_test")),
}


class Arrays(Dataset):
    """imgs uint8 [n, height, width] (grey) or [n, height, width, 3] (RGB), with labels [n] or without, and class names."""

    format = "npz"

    def __init__(self, path: Path, split: str = "train"):
        """Raises Problem for a file that cannot be read, or whose arrays are not as above."""
        arrays = _arrays(path)
        pairs = _NAMES[split]
        names = next((pair for pair in pairs if pair[0] in arrays), None)
        if names is None:
            raise Problem(
                f"{path} holds {', '.join(arrays) or 'nothing'}; it must hold imgs, uint8 [n, height, width] or "
                "[n, height, width, 3], and may hold labels [n]."
            )
        self.path, self.imgs = path, arrays[names[0]]
        shape = self.imgs.shape
        if self.imgs.dtype != np.uint8 or not (len(shape) == 3 or (len(shape) == 4 and shape[-1] in (1, 3))):
            raise Problem(
                f"{names[0]} of {path} is {self.imgs.dtype} {list(shape)}; it must be uint8 [n, height, width] (grey) or "
                "[n, height, width, 3] (RGB), with values from 0 to 255."
            )
        if 0 in shape:
            raise Problem(f"{names[0]} of {path} is {list(shape)}: it holds no image.")
        self.labels = _labels(path, arrays.get(names[1]), len(self.imgs))
        if self.labels is not None:
            numbered, given = numbered_classes(self.labels.tolist(), str(path)), arrays.get("classes")
            self.classes = numbered if given is None else tuple(map(str, given.tolist()))
            if len(self.classes) < len(numbered):
                raise Problem(f"{path} names {len(self.classes)} classes, and its labels go up to {numbered[-1]}.")

    def __len__(self) -> int:
        return len(self.imgs)

    def name(self, index: int) -> str:
        return f"{self.path.name}[{index}]"

    def label(self, index: int) -> int | None:
        return None if self.labels is None else int(self.labels[index])

    def image(self, index: int, channels: int = 3, upright: bool = False) -> Image.Image:
        from PIL import Image

        pixels = self.imgs[index]
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 and pixels.ndim == 3 else pixels)
        wanted = "RGB" if channels == 3 else "L"
        return image if image.mode == wanted else image.convert(wanted)

    def read(self, index: int) -> bytes:
        """The image as a PNG file."""
        file = BytesIO()
        self.image(index, 3 if self.imgs.shape[3:] == (3,) else 1).save(file, "PNG")
        return file.getvalue()

    def sizes(self) -> Iterator[int]:
        return iter([self.imgs[0].nbytes] * len(self.imgs))

    def fingerprint(self) -> str:
        """SHA-256 of all pixels, labels and class names."""
        whole = hashlib.sha256(repr((self.format, self.classes, self.imgs.shape)).encode())
        whole.update(np.ascontiguousarray(self.imgs).data)
        if self.labels is not None:
            whole.update(self.labels.astype("<i8").tobytes())
        return whole.hexdigest()


def _arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        arrays = np.load(path, allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise ValueError("it holds one array without a name")
        with arrays:
            return {name: np.asarray(arrays[name]) for name in arrays.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as problem:
        raise Problem(f"{path} is not a readable .npz file ({problem}); write it with numpy.savez.") from None


def _labels(path: Path, given: NDArray[np.generic] | None, count: int) -> NDArray[np.int64] | None:
    if given is None:
        return None
    if given.dtype.kind not in "iu" or given.shape != (count,) or (count and int(given.min()) < 0):
        raise Problem(
            f"The labels of {path} are {given.dtype} {list(given.shape)}; for its images they must be whole numbers from 0, "
            f"[{count}]."
        )
    return given.astype(np.int64)
