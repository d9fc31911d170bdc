"""Judging recorded runs against the float64 oracle."""

LEVELS = ("weights", "inputs", "forward", "loss", "gradients")
TIME_LIMIT = 900.0  # seconds that one framework's process may take
