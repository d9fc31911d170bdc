"""One masked autoencoder, written in five frameworks."""

# Their names: the folders here, the packages that they import (NumPy and torch included), and the values of --framework.
FRAMEWORKS = ("numpy", "torch", "megengine", "mindspore", "oneflow")
DEVICES = ("cpu", "cuda", "ascend")  # the values of --device
