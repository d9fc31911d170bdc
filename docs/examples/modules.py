"""A torch.nn.Module and its port to a MindSpore Cell, as they are: no function of arrays has to be written."""

import numpy as np
import torch
from mindspore import nn

from polymae.compare import parity, tapped


class TorchNet(torch.nn.Module):
    """The model as it was first written."""

    def __init__(self):
        super().__init__()
        self.fc1 = torch.nn.Linear(24, 64)
        self.act = torch.nn.GELU()
        self.norm = torch.nn.LayerNorm(64)
        self.fc2 = torch.nn.Linear(64, 8)

    def forward(self, x):
        return self.fc2(self.norm(self.act(self.fc1(x))))


class MindSporeNet(nn.Cell):
    """Its port. approximate=True, MindSpore's default, is the planted fault."""

    def __init__(self, approximate):
        super().__init__()
        self.fc1 = nn.Dense(24, 64)
        self.act = nn.GELU(approximate)
        self.norm = nn.LayerNorm((64,), epsilon=1e-5)
        self.fc2 = nn.Dense(64, 8)

    def construct(self, x):
        return self.fc2(self.norm(self.act(self.fc1(x))))


def loss(y, tensors):
    """The mean squared error, in either framework; tensors: the inputs by name."""
    return ((y - tensors["wanted"]) ** 2).mean()


torch.manual_seed(0)
net, rng = TorchNet().eval(), np.random.default_rng(16)
inputs = {"x": rng.standard_normal((32, 24)), "wanted": rng.standard_normal((32, 8)), **net.state_dict()}
reference = tapped(net, ["x"], loss=loss)
for label, approximate in {"MindSpore": False, "MindSpore with its default GELU": True}.items():
    port = tapped(MindSporeNet(approximate), ["x"], loss=loss, names={"gamma": "weight", "beta": "bias"})
    print(parity(reference, port, inputs, label=label), end="\n\n")
