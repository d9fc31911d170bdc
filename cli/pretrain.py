"""`polymae pretrain`: pre-train a masked autoencoder in any framework."""

from __future__ import annotations

import argparse

from .training import add_training_arguments, train


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polymae pretrain`."""
    weights = "checkpoint of any framework to begin with, or a published one by name"
    add_training_arguments(parser, "official-base", weights)


def run(args: argparse.Namespace) -> int:
    """Train, print the outcome, and return 0; 75 where a signal ended the run after it was saved."""
    from ..training.recipe import Recipe

    return train(args, Recipe)
