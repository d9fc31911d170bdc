"""Faults on the way from the image file to the model."""

from __future__ import annotations

from functools import partial

from .planting import Edits, Fault, in_all

_fault = partial(Fault, level="inputs")
_of_pixels = partial(_fault, located_at="preprocessed/pixels")
_of_values = partial(_fault, located_at="preprocessed/imgs")


def _edits(old: str, new: str) -> Edits:
    return in_all("data.images", (old, new))


PIXELS = (
    _of_pixels(
        "channels in the order BGR",
        about="The image was read by OpenCV.",
        edits=_edits(
            "return np.array(centre_crop(resize(image, sides), size))",
            "return np.array(centre_crop(resize(image, sides), size))[..., ::-1]",
        ),
    ),
    _of_pixels(
        "bilinear resize",
        about="The default of torchvision's Resize was left for bicubic.",
        edits=_edits("Resampling.BICUBIC", "Resampling.BILINEAR"),
    ),
    _of_pixels(
        "crop a pixel off",
        about="The middle was rounded to the other side.",
        edits=_edits("round((image.width - width) / 2)", "round((image.width - width) / 2) + 1"),
    ),
    _of_pixels(
        "resized to the crop itself",
        about="The shorter side became 224, not 256, before 224 were cropped.",
        edits=_edits("int(side / share)", "side"),
    ),
    _of_pixels(
        "aspect ratio lost",
        about="Both sides were resized to the same, as Resize((256, 256)) does.",
        edits=_edits(
            "    if width * rows >= height * columns:\n",
            "    return rows, columns\n    if width * rows >= height * columns:\n",
        ),
    ),
)

VALUES = (
    _of_values(
        "mean and deviation of one half",
        about="The statistics of other models, 0.5 in each channel, were used for ImageNet's.",
        edits=in_all(
            "data.images",
            ("(0.485, 0.456, 0.406)", "(0.5, 0.5, 0.5)"),
            ("(0.229, 0.224, 0.225)", "(0.5, 0.5, 0.5)"),
        ),
    ),
    _of_values(
        "deviations in the order BGR",
        about="The list of deviations was reversed with the channels, and not back.",
        edits=_edits("(0.229, 0.224, 0.225)", "(0.225, 0.224, 0.229)"),
    ),
    _of_values(
        "pixels not divided by 255",
        about="0 to 255 was standardised as if it were 0 to 1.",
        edits=_edits("/ np.array(255, dtype)", ""),
    ),
    _of_values(
        "pixels divided by 256",
        about="The number of values was taken for the largest.",
        size=1 / 256,
        edits=_edits("np.array(255, dtype)", "np.array(256, dtype)"),
    ),
    _of_values(
        "channels last read as channels first",
        about="The array was reshaped where its axes had to be moved.",
        edits=_edits(
            "np.moveaxis(standard, -1, -3)", "standard.reshape(*standard.shape[:-3], 3, *standard.shape[-3:-1])"
        ),
    ),
)

FAULTS = (*PIXELS, *VALUES)
