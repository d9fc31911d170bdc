"""Judging: the numbers of a run beside the right ones, tensor by tensor. NumPy only."""
