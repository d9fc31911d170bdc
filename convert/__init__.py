"""Checkpoints from any framework to any other, without the frameworks."""
