"""Judging recorded runs against the float64 oracle."""
