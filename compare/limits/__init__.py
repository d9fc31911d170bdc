"""How far a right tensor may be from the oracle: one tensor, its measures and its limit. NumPy only."""
