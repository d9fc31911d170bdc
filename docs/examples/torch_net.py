"""The model as it was first written: conv - relu - pool - conv - linear, with its loss and gradients, in PyTorch."""

import torch
import torch.nn.functional as F


def run(inputs):
    """Tensors by name from arrays by name, computed in the type of the arrays: float64 is the reference."""
    t = {name: torch.tensor(array) for name, array in inputs.items()}
    weights = {name: tensor.requires_grad_() for name, tensor in t.items() if name not in ("images", "labels")}
    out = {}
    x = out["conv1"] = F.conv2d(t["images"], t["conv1.weight"], t["conv1.bias"], stride=2, padding=1)
    x = out["relu"] = F.relu(x)
    x = out["pool"] = F.max_pool2d(x, 2)
    x = out["conv2"] = F.conv2d(x, t["conv2.weight"], t["conv2.bias"], padding=1)
    x = out["logits"] = F.linear(x.flatten(1), t["linear.weight"], t["linear.bias"])
    out["loss"] = F.cross_entropy(x, t["labels"])
    out["loss"].backward()
    gradients = {f"{name}.grad": weight.grad for name, weight in weights.items()}
    return {name: tensor.detach().numpy() for name, tensor in (out | gradients).items()}
