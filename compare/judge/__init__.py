"""Judging: what a run found, beside what it should have found, tensor by tensor. NumPy only."""
