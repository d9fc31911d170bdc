"""Images that a person gives one by one: files, folders, patterns, Pillow's images, arrays; and what is made of each."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..data.augment import Augmentation
from ..data.folders import Given, images_below
from ..files.errors import Problem

if TYPE_CHECKING:
    from PIL import Image

Made = TypeVar("Made")
_IN_PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")  # the modes that a PNG file holds as they are


class Images(Given):
    """Images by name, of which some are in memory. They are decoded as a data set's files are, whatever they come from."""

    def __init__(self, names: list[str], held: dict[int, bytes]):
        """held: by index, an encoded image that is no file."""
        super().__init__(names)
        self.held = held

    def read(self, index: int) -> bytes:
        return self.held[index] if index in self.held else super().read(index)


def images_of(given: Any) -> Images:
    """The images that are meant by a path, folder, pattern, Pillow image or array, or by a list of them, in its order.

    An array is uint8 [height, width], [height, width, 1, 3 or 4], or a batch of these. A file is taken once; an image in
    memory has the name of the file that it was opened from, else "image-" and its place. Raises Problem for a name of
    nothing, and for arrays of another form.
    """
    names: dict[str, None] = {}  # ordered, and each once
    held: dict[int, bytes] = {}
    for item in given if isinstance(given, (list, tuple)) else [given]:
        if isinstance(item, (str, Path)):
            names |= dict.fromkeys(found_images([str(item)]))
            continue
        for image in _pictures(item):
            number = len(names)
            name = str(getattr(image, "filename", "") or f"image-{number}")
            names[name if name not in names else f"{name} ({number})"] = None
            held[number] = _encoded(image, name)
    if not names:
        raise Problem("No image was given; give images, folders of them, or patterns such as 'photos/**/*.jpg'.")
    return Images([*names], held)


def found_images(given: Sequence[str]) -> list[str]:
    """The images that files, folders and patterns name, each once, in their order; those of a folder or a pattern sorted.

    Raises Problem for a name of nothing.
    """
    names: list[str] = []
    for text in given:
        there = Path(text).exists()
        matched = [text] if there else sorted(glob.glob(text, recursive=True))  # noqa: PTH207  (of any root)
        inside = [one for path in matched for one in _files(path)]
        if not inside:
            kind = "holds no image" if there else "is not there" if not set("*?[") & set(text) else "matches no file"
            raise Problem(f"{text} {kind}; give images, folders of them, or patterns such as 'photos/**/*.jpg'.")
        names += inside
    return list(dict.fromkeys(names))


def made_of(
    images: Images,
    augmentation: Augmentation,
    batch_size: int,
    workers: int,
    made: Callable[[NDArray[np.float32], list[int]], Iterable[Made]],
    broken: Callable[[str, str], Made],
) -> Iterator[Made]:
    """Something of each image, in their order, made in batches as it is asked for.

    made: of images float32 [n, C, height, width] and their places, one thing for each. broken: of the name of an image that
    cannot be decoded, and why. workers: threads that decode.
    """

    def decode(index: int) -> NDArray[np.float32] | str:
        try:
            return augmentation(images.image(index, augmentation.channels, augmentation.upright), 0, 0, index)
        except Problem as problem:
            return str(problem)

    with ThreadPoolExecutor(max(1, workers)) as pool:
        for first in range(0, len(images), batch_size):
            places = range(first, min(first + batch_size, len(images)))
            inputs = dict(zip(places, pool.map(decode, places)))
            sound = {place: one for place, one in inputs.items() if not isinstance(one, str)}
            done = iter(made(np.stack([*sound.values()]), [*sound]) if sound else ())
            for place, one in inputs.items():
                yield broken(images.name(place), one) if isinstance(one, str) else next(done)


def distinct(names: Sequence[str]) -> list[str]:
    """A file's name for each image, without an ending: no two are alike.

    The image's own; where two would be alike, all have as many of their folders before it as tell them apart
    ("ant-0", "bee-0"), then their endings, and at last their places.
    """
    paths = [Path(name) for name in names]
    longest = max((len(path.parts) for path in paths), default=0)
    for depth in range(1, longest + 1):
        for ending in (False, True):
            made = [_flat(path if ending else path.with_name(path.stem), depth) for path in paths]
            if len({name.casefold() for name in made}) == len(made):
                return made
    return [f"{_flat(path.with_name(path.stem), 1)}-{place}" for place, path in enumerate(paths)]


def _flat(path: Path, depth: int) -> str:
    kept = [part for part in path.parts[-depth:] if part != path.anchor]
    return "-".join(kept).replace(".", "-").strip("-") or "image"


def _files(path: str) -> list[str]:
    if not Path(path).is_dir():
        return [path]
    return [str(Path(path) / name) for name in images_below(Path(path))]


def _pictures(item: Any) -> list[Image.Image]:
    """The images that are in memory. Raises Problem for anything else."""
    from PIL import Image

    if isinstance(item, Image.Image):
        return [item]
    array = np.asarray(item)
    several = array.ndim == 4
    if array.dtype != np.uint8 or array.ndim not in (2, 3, 4) or (array.ndim > 2 and array.shape[-1] not in (1, 3, 4)):
        raise Problem(
            f"An image is given as {type(item).__name__} of {array.dtype} {list(array.shape)}; give a path, a Pillow image, or "
            "an array of uint8 [height, width, channels] with 1, 3 or 4 channels (or a batch of them). Values in [0, 1] "
            "become such by numpy.rint(255 * values).astype('uint8').",
            code="bad-argument",
        )
    return [
        Image.fromarray(one[..., 0] if one.shape[-1:] == (1,) and one.ndim == 3 else one)
        for one in (array if several else [array])
    ]


def _encoded(image: Image.Image, name: str) -> bytes:
    """An image as the bytes of a file that loses nothing. Raises Problem for a mode that no file holds."""
    file = BytesIO()
    try:
        image.save(
            file,
            "PNG" if image.mode in _IN_PNG else "TIFF",
            exif=image.getexif(),
            **({"compress_level": 1} if image.mode in _IN_PNG else {}),
        )
    except (OSError, ValueError, KeyError) as problem:
        raise Problem(
            f"{name} is a Pillow image of mode {image.mode}, which cannot be read here ({problem}); give image.convert('RGB')."
        ) from None
    return file.getvalue()
