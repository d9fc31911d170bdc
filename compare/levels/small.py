"""The small model that the levels optimizer and curve train, and its schedule: they cost the same whatever is compared."""

from __future__ import annotations

from dataclasses import replace

from ...backends.config import Config, MAEConfig
from ...backends.optimization import FINETUNING, Schedule, Settings

STEPS, BATCH, MASK_RATIO, SEED = 100, 8, 0.75, 0
DROP_PATH = 0.25  # of the last block, where the compared run has drop path
SCHEDULE = Schedule(lr=1e-3, warmup_epochs=2, epochs=10, steps_per_epoch=10)
SETTINGS = Settings(clip=1.0)  # of the curve


def settings_of(config: Config) -> Settings:
    """Of the level optimizer: pre-training's, or a classifier's fine-tuning's."""
    return SETTINGS if isinstance(config, MAEConfig) else replace(FINETUNING, clip=SETTINGS.clip)


def rate(step: int) -> float:
    """The learning rate of a step, from 0 on."""
    return SCHEDULE.rate(step)


def training_config(config: Config) -> Config:
    """A small model with the settings of the same family, for 32 x 32 crops of photographs."""
    small = replace(
        config, img_size=(32, 32), patch_size=8, in_chans=3, embed_dim=48, depth=2, num_heads=3, mlp_ratio=4.0
    )
    if isinstance(small, MAEConfig):
        return replace(small, decoder_embed_dim=32, decoder_depth=1, decoder_num_heads=4)
    return replace(small, num_classes=10)
