"""mindcv (MindSpore): its autoencoders and classifiers have the names of our own MindSpore file, and compute otherwise.

Its files look like ours, so that it must be named. Its autoencoder normalises a patch by the biased variance
and without an eps; its classifier takes the tanh approximation of GELU.
"""

from __future__ import annotations

from .dialect import OFFICIAL_NUMERICS, OFFICIAL_PARTS, PLAIN_IMAGES, Dialect
from .native import MINDSPORE

MINDCV = Dialect(
    name="mindcv",
    title="mindcv's MAE and classifiers",
    spellings={kind: spelling for kind, spelling in MINDSPORE.spellings.items() if kind != "probe"},
    shows=MINDSPORE.shows,
    never=MINDSPORE.never,
    computes={**OFFICIAL_NUMERICS, "variance": "biased, without eps"},
    computes_in={"classifier": {"gelu": "tanh"}, "headless": {"gelu": "tanh"}},
    allows={**OFFICIAL_PARTS, **PLAIN_IMAGES},
    unused=MINDSPORE.unused,
    metadata=MINDSPORE.metadata,
    explicit=True,
)
