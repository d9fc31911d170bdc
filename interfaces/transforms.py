"""mindformers' lists of transforms as settings of a recipe's images."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..data.images import MEAN, STD

if TYPE_CHECKING:
    from .mindformers import Keys

Transform = dict[str, Any]
Readers = dict[str, Callable[[Transform], dict[str, Any]]]  # by a transform's type, the settings that it means
_FILTERS = {
    "cubic": "bicubic",
    "bicubic": "bicubic",
    "linear": "bilinear",
    "bilinear": "bilinear",
    "nearest": "nearest",
}
_CONVERSIONS = ("Decode", "ToPIL", "ToTensor", "HWC2CHW")  # which change no value


def of_training(keys: Keys, transforms: list[Transform], classifies: bool) -> dict[str, Any]:
    """crop, scale, ratio, interpolation, flip, mean and std, and of a classifier auto_augment, erase and erase_count.

    What is not in the list is not done. Problems and notices go to keys.
    """
    readers: Readers = {
        "RandomCropDecodeResize": _box, "RandomResizedCrop": _box,
        "RandomHorizontalFlip": lambda one: {"flip": one.pop("prob", 0.5)},
        "Normalize": _statistics,
    }  # fmt: skip
    if classifies:
        readers |= {"rand_augment_transform": _augmented, "RandomErasing": _erased}
    settings: dict[str, Any] = {"flip": 0.0, **({"auto_augment": None, "erase": 0.0} if classifies else {})}
    settings |= _read(keys, "train_dataset", transforms, readers)
    side, known = settings.pop("size", None), keys.values.get("model.model_config.image_size")
    if None not in (side, known) and side != known:
        keys.problems.append(f"train_dataset.transforms: size is {side}, and the model's image_size {known}")
    if settings.pop("hparams", None):
        keys.notices.append("hparams of RandAugment: as timm has them for the model's size")
    slip = {
        name: settings.get(name)
        for name, values in (("mean", MEAN), ("std", STD))
        if _nearly(settings.get(name), values)
    }
    if slip:
        keys.notices.append(
            f"{', '.join(f'{name} {value}' for name, value in slip.items())}: nearly ImageNet's, a slip in mindformers' file, "
            "taken as it is written; ImageNet's by --set mean=null std=null"
        )
    return settings


def of_evaluation(keys: Keys, transforms: list[Transform], trained: dict[str, Any]) -> dict[str, Any]:
    """crop_ratio: the middle that is kept of the resized image, as a share of its sides. trained: what of_training gave."""
    readers: Readers = {
        "Resize": lambda one: _side("resized", one), "CenterCrop": lambda one: _side("kept", one), "Normalize": _statistics
    }  # fmt: skip
    if not transforms:
        return {}
    settings = _read(keys, "eval_dataset", transforms, readers)
    for name in ("mean", "std", "interpolation"):
        if settings.get(name) != trained.get(name, settings.get(name)):
            keys.problems.append(
                f"eval_dataset.transforms: {name} is {settings.get(name)}, and in training {trained[name]}"
            )
    resized, kept = settings.get("resized"), settings.get("kept")
    if not isinstance(resized, int) or not isinstance(kept, int) or kept > resized:
        keys.problems.append(
            "eval_dataset.transforms: the shorter side is resized (Resize, one number) and the middle cropped (CenterCrop)"
        )
        return {}
    return {"crop_ratio": kept / resized}


def _read(keys: Keys, part: str, transforms: list[Transform], readers: Readers) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for one in transforms:
        rest = dict(one)
        name = str(rest.pop("type", None))
        if name in readers:
            settings |= readers[name](rest)
        elif name not in _CONVERSIONS:
            keys.problems.append(f"{part}.transforms: {name} is not known here; there are {', '.join(readers)}")
            continue
        keys.problems += [
            f"{part}.transforms: {name} has {key} {value!r}, which is not known here" for key, value in rest.items()
        ]
    if settings.get("interpolation") not in (None, *_FILTERS.values()):
        keys.problems.append(
            f"{part}.transforms: interpolation is {settings['interpolation']!r}, not one of {', '.join(_FILTERS)}"
        )
    return settings


# A reader takes what it knows out of a transform; what is left is a problem.
def _box(one: Transform) -> dict[str, Any]:
    named = one.pop("interpolation", "cubic")
    kept = {name: one.pop(name) for name in ("scale", "ratio", "size") if name in one}
    return {"crop": "random_resized", "interpolation": _FILTERS.get(named, named)} | kept


def _side(name: str, one: Transform) -> dict[str, Any]:
    named = one.pop("interpolation", None)
    return {name: one.pop("size", None)} | ({} if named is None else {"interpolation": _FILTERS.get(named, named)})


def _statistics(one: Transform) -> dict[str, Any]:
    """Mean and deviation of values in [0, 1], where the file may have those of values to 255."""
    one.pop("is_hwc", None)
    most = 255.0 if max(one.get("mean", [0])) > 1 else 1.0
    return {name: [round(value / most, 6) for value in one.pop(name)] for name in ("mean", "std") if name in one}


def _augmented(one: Transform) -> dict[str, Any]:
    return {"auto_augment": one.pop("config_str", None), "hparams": one.pop("hparams", None)}


def _erased(one: Transform) -> dict[str, Any]:
    if one.get("mode") == "pixel":  # noise in every pixel, which is what is erased with here
        del one["mode"]
    return {"erase": one.pop("probability", 0.5), "erase_count": one.pop("max_count", 1)}


def _nearly(given: list[float] | None, usual: tuple[float, ...]) -> bool:
    """Whether numbers are not these, and yet near them."""
    if given is None or len(given) != len(usual):
        return False
    return 1e-4 < max(abs(one - other) for one, other in zip(given, usual)) < 0.05
