"""Before a long pre-training: whether this framework, on this machine, with this recipe and data, trains right."""
