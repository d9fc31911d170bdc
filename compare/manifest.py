"""What a trace's manifest says, and of which type each field is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .options import LEVELS

OWN = "own"  # the kind of a configuration that is none of ours: somebody's own model (library.py)
DTYPES = ("float32", "float64", "bfloat16")


def _text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _share(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value < 1


def _texts(value: Any) -> bool:
    return isinstance(value, list) and value != [] and all(_text(item) for item in value)


def _digests(value: Any) -> bool:
    return isinstance(value, dict) and all(_text(digest) for digest in value.values())


def _environment(value: Any) -> bool:
    return isinstance(value, dict) and all(_text(value.get(name)) for name in ("framework", "version", "device"))


def _optional(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or kind(value)


# Every field that `judge` and `compare_traces` read, how to know a right value, and what that is in words.
FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "framework": (_text, "a name"),
    "config": (lambda value: isinstance(value, dict), "an object"),
    "mask_ratio": (_share, "a number from 0 to below 1"),
    "dtype": (lambda value: value in DTYPES, f"one of {', '.join(DTYPES)}"),
    "levels": (lambda value: _texts(value) and set(value) <= set(LEVELS), f"a list of {', '.join(LEVELS)}"),
    "taps": (_optional(_texts), "a list of patterns, or null"),
    "environment": (_environment, "an object with framework, version and device"),
    "inputs": (_digests, "an object of digests"),
    "images": (_optional(lambda value: _digests(value) or _texts(value)), "digests, or null"),
    "training": (_optional(lambda value: _text(value) or _digests(value) or _texts(value)), "digests, or null"),
    "source": (_text, "a content hash"),
    "weights": (lambda value: value != {} and _digests(value), "an object of digests"),
    "seed": (_whole, "a whole number"),
    "twin": (_optional(_whole), "a whole number, or null"),
    "kernel_noise": (_optional(_text), "OPERATION=SIZE, or null"),
}

# What the trace of somebody's own model says: nothing of masks, nor of weights that we would know.
OWN_FIELDS = {name: FIELDS[name] for name in ("framework", "config", "dtype", "levels", "taps", "inputs")}
OWN_FIELDS["environment"] = (lambda value: isinstance(value, dict), "an object")


def is_own(manifest: dict[str, Any]) -> bool:
    """Whether a manifest is of somebody's own model."""
    config = manifest.get("config")
    return isinstance(config, dict) and config.get("kind") == OWN


def require_manifest(manifest: dict[str, Any]) -> None:
    """Raise ValueError for a manifest that lacks a field or has one of another type."""
    fields = OWN_FIELDS if is_own(manifest) else FIELDS
    if absent := [name for name in fields if name not in manifest]:
        raise ValueError(f"it does not say its {', '.join(absent)}")
    for name, (right, words) in fields.items():
        if not right(manifest[name]):
            raise ValueError(f"{name} is {_short(manifest[name])}, and must be {words}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
