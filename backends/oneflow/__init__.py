"""The OneFlow backend."""
