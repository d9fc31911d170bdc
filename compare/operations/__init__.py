"""How accurate each framework's kernels are, for every operation that people build networks of."""
