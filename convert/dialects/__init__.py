"""The spellings of the spec that exist in the world: one row of data each, in the table DIALECTS.

A dialect says how its names and layouts differ from the spec's, which kinds of file it has, by which tensors a file of
it is known, and with which settings its program computes. Only the way from the spec is written; every row is checked
for being one-to-one, leaf by leaf, when this module is imported.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from ...backends.config import MAEConfig, ViTConfig
from ...backends.spec import Param, params
from .contents import KINDS, OF_CLASSIFIERS, Contents, contents_of, encoder_config, expected_params, settings_in
from .dialect import Dialect, Sign
from .flyegle import FLYEGLE
from .huggingface import HUGGINGFACE, HUGGINGFACE_SAVED_BY_5, HUGGINGFACE_V5
from .libai import LIBAI, LIBAI_CLS
from .mindcv import MINDCV
from .mindformers import MINDFORMERS_03, MINDFORMERS_03_TRAINED, MINDFORMERS_08
from .mmpretrain import MMPRETRAIN
from .native import MEGENGINE, MINDSPORE, OFFICIAL, POLYMAE, TIMM

__all__ = [
    "DIALECTS", "KINDS", "OF_CLASSIFIERS", "Contents", "Dialect", "Sign", "contents_of", "encoder_config", "expected_params",
    "known_params", "settings_in",
]  # fmt: skip

# The order matters: if two dialects read a file alike, the first one names it.
DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        OFFICIAL, TIMM, POLYMAE, MEGENGINE, MINDSPORE, HUGGINGFACE, HUGGINGFACE_SAVED_BY_5, HUGGINGFACE_V5,
        MINDFORMERS_08, MINDFORMERS_03, MINDFORMERS_03_TRAINED, MINDCV, MMPRETRAIN, LIBAI, LIBAI_CLS, FLYEGLE,
    )
}  # fmt: skip


@lru_cache
def known_params(depth: int, decoder_depth: int) -> tuple[Param, ...]:
    """Every parameter that any kind of model of these depths can have, in the spec's order.

    Names and roles count; the shapes are placeholders.
    """
    small = {"img_size": (4, 4), "patch_size": 4, "in_chans": 1, "embed_dim": 4, "num_heads": 1, "depth": depth}
    decoder = {"decoder_embed_dim": 4, "decoder_num_heads": 1, "decoder_depth": decoder_depth}
    configs: list[MAEConfig | ViTConfig] = [
        *(MAEConfig(**small, **decoder, head=head) for head in ("linear", "conv")),  # type: ignore[arg-type]
        *(ViTConfig(**small, pooling=pooling, head_norm=True) for pooling in ("gap", "cls")),  # type: ignore[arg-type]
    ]
    by_name = {param.name: param for config in configs for param in params(config)}
    return tuple(by_name.values())


def check_one_to_one(dialects: Iterable[Dialect], leaves: Iterable[Param]) -> None:
    """Raise ValueError, naming the leaf, if two leaves of a kind of file get one name, or one gets none."""
    leaves = tuple(leaves)
    for dialect in dialects:
        for contents, spelling in dialect.spellings.items():
            taken: dict[str, str] = {}
            for param in leaves:
                if not holds(dialect, contents, param.name):
                    continue
                names, layout = spelling.spell(param)
                if layout and len(names) > 1:
                    raise ValueError(
                        f"dialect {dialect.name}: {param.name} is cut and rearranged; only one is possible"
                    )
                for name in names:
                    if not name or name in taken:
                        raise ValueError(
                            f"dialect {dialect.name}, {contents}: {param.name} and {taken.get(name)} are both {name!r}"
                        )
                    taken[name] = param.name


def holds(dialect: Dialect, contents: Contents, name: str) -> bool:
    """Whether a file of this dialect and kind can hold the spec's tensor of this name, under a name of its own."""
    if name in dialect.derived:
        return False
    module = name.partition(".")[0]
    if module.startswith("decoder_") or module in ("mask_token", "patch_norm", "unconv"):
        return contents == "mae"
    if module == "head":
        return contents in ("classifier", "probe")
    if module == "head_norm":
        return contents == "probe"
    pooling = dialect.allows.get("pooling", ("gap", "cls"))
    if module == "fc_norm":
        return contents in OF_CLASSIFIERS and "gap" in pooling
    return module != "norm" or contents in ("mae", "encoder") or pooling != ("gap",)


check_one_to_one(DIALECTS.values(), known_params(2, 2))
