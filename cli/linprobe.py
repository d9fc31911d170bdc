"""`polymae linprobe`: train a linear classifier on a frozen encoder."""

from __future__ import annotations

import argparse

from .training import add_classifier_arguments, train


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polymae linprobe`."""
    weights = "checkpoint of any framework, a pre-training's folder, or a published one by name"
    add_classifier_arguments(parser, "linprobe-base", weights)


def run(args: argparse.Namespace) -> int:
    """Train, print the outcome, and return 0; 75 where a signal ended the run after it was saved."""
    from ..training.classifying import Probe

    return train(args, Probe)
