"""What both models are run on, and what is compared."""

import numpy as np

rng = np.random.default_rng(16)
shapes = {
    "conv1.weight": (8, 3, 3, 3), "conv1.bias": (8,), "conv2.weight": (16, 8, 3, 3), "conv2.bias": (16,),
    "linear.weight": (10, 256), "linear.bias": (10,),
}  # fmt: skip
inputs = {"images": rng.standard_normal((4, 3, 16, 16)), "labels": rng.integers(0, 10, 4)}
inputs |= {name: 0.1 * rng.standard_normal(shape) for name, shape in shapes.items()}
taps = ["conv1", "relu", "pool", "conv2", "logits", "loss"]
gradients = [f"{name}.grad" for name in reversed(shapes)]  # the backward pass ends where the forward began
