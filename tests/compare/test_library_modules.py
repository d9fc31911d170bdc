"""Modules of every framework as `tapped` gives them to parity: taps by their hooks, weights from the inputs, gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from children import run_in

from polymae.compare import Problem, tapped

# A net of four parts, one of them called twice and one giving two tensors, with a tied weight; the same four times over.
TORCH = """
import numpy as np, torch
from polymae.compare import Problem, parity, tapped

class Split(torch.nn.Module):
    def forward(self, x):
        return x[:, :4], x[:, 4:]

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.act = torch.nn.ReLU(inplace=True)
        self.split = Split()
        self.mix = torch.nn.Linear(4, 4)
        self.again = torch.nn.Linear(4, 4)
        self.again.weight = self.mix.weight
        self.idle = torch.nn.Linear(2, 2)

    def forward(self, x):
        one, two = self.split(self.act(self.norm(self.conv(x))).mean((2, 3)))
        return self.act(self.mix(one) + self.again(two))

torch.manual_seed(0)
net = Net().eval()
with torch.no_grad():
    net.norm.running_mean += torch.rand(8)
    net.norm.weight += torch.rand(8)
rng = np.random.default_rng(0)
inputs = {"images": rng.standard_normal((4, 3, 4, 4)), "wanted": rng.standard_normal((4, 4)), **net.state_dict()}
reference = tapped(net, ["images"], loss=lambda y, t: ((y - t["wanted"]) ** 2).mean())
"""
LIKE_TORCH = """
class Split(nn.Module):
    def forward(self, x):
        return x[:, :4], x[:, 4:]

class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU()
        self.split = Split()
        self.mix = nn.Linear(4, 4)
        self.again = nn.Linear(4, 4)
        self.again.weight = self.mix.weight
        self.idle = nn.Linear(2, 2)

    def forward(self, x):
        one, two = self.split(self.act(self.norm(self.conv(x))).mean(MEAN))
        return self.act(self.mix(one) + self.again(two))

port = Port()
port.eval()
more = {}
"""
PORTS = {
    "torch": "nn = torch.nn; MEAN = (2, 3)\n" + LIKE_TORCH,
    "oneflow": "import oneflow; nn = oneflow.nn; MEAN = (2, 3)\n" + LIKE_TORCH,
    "megengine": "import megengine.module as nn; MEAN = [2, 3]\n" + LIKE_TORCH,
    "mindspore": """
from mindspore import nn

class Split(nn.Cell):
    def construct(self, x):
        return x[:, :4], x[:, 4:]

class Port(nn.Cell):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, pad_mode="pad", padding=1, has_bias=True)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU()
        self.split = Split()
        self.mix = nn.Dense(4, 4)
        self.again = nn.Dense(4, 4)
        self.again.weight = self.mix.weight
        self.idle = nn.Dense(2, 2)

    def construct(self, x):
        one, two = self.split(self.act(self.norm(self.conv(x))).mean((2, 3)))
        return self.act(self.mix(one) + self.again(two))

port = Port()
port.set_train(False)
more = {"names": {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}}
""",
}
JUDGED = """
def judged(**options):
    loss = lambda y, t: ((y - t["wanted"]) ** 2).mean()
    return parity(reference, tapped(port, ["images"], loss=loss, **more | options), inputs)

result = judged()
print(result.reason)
print(*(finding.name for finding in result.findings))
print(*(finding.size for finding in result.findings))
again = judged()
print([a.error for a in result.findings] == [b.error for b in again.findings])
split = port.split  # the planted fault: the two halves the other way round
class Turned:
    pass
forward = "construct" if hasattr(type(split), "construct") else "forward"
right = getattr(type(split), forward)
setattr(type(split), forward, lambda self, x: tuple(reversed(right(self, x))))
print(judged().reason)
setattr(type(split), forward, right)
print(judged(modules=["conv", "mix"]).reason)
"""
TAPS = ["conv", "norm", "act", "split[0]", "split[1]", "mix", "again", "act@2", "output", "loss"]
BACKWARD = [
    "again.bias.grad", "mix.bias.grad", "mix.weight.grad", "norm.bias.grad", "norm.weight.grad", "conv.bias.grad",
    "conv.weight.grad", "idle.weight.grad", "idle.bias.grad",
]  # fmt: skip


@pytest.mark.parametrize("framework", PORTS)
def test_a_module_is_tapped_in_every_framework(framework):
    lines = run_in(framework, TORCH + PORTS[framework] + JUDGED).splitlines()[-6:]
    assert lines[0] == "candidate: roundoff: 19 tensors compared"
    assert lines[1].split() == [*TAPS, *BACKWARD]
    assert lines[2].split()[-5:] == ["8", "8", "216", "4", "2"]
    assert lines[3] == "True"  # hooks do not pile up, nor do gradients
    assert lines[4].startswith("candidate: fault: first wrong: split[0] (E ")
    assert "candidate: coverage hole: norm is missing" in lines[5]


ODD = """
def said(function, inputs=inputs):
    try:
        return sorted(function(inputs))
    except Problem as problem:
        return problem

arrays = {name: np.array(value) for name, value in inputs.items()}
print(said(tapped(net, ["images"]), {name: array for name, array in arrays.items() if name != "wanted"}))
print(said(tapped(net, ["images"]), arrays))
print(said(tapped(net, ["images"]), {"images": np.float32(arrays["images"])}))
print(said(tapped(net, ["image"]), {"images": arrays["images"]}))
print(said(reference, arrays | {"mix.bais": np.zeros(4)}))
print(said(reference, {name: array for name, array in arrays.items() if name != "norm.bias"}))
print(said(reference, arrays | {"mix.bias": np.zeros((4, 2))}))
print(said(reference, arrays | {"again.weight": np.zeros((4, 4))}))
print(said(reference, {name: array for name, array in arrays.items() if name != "mix.weight"}))
print(said(tapped(net, ["images"], modules=["cnv"]), {"images": arrays["images"]}))
print(said(tapped(net, ["images"], names={"mix": "again"}), {"images": arrays["images"]}))
print(said(tapped(net, ["images"], names=lambda name: name.replace("act", "loss")), {"images": arrays["images"]}))
print(parity(reference, tapped(net, ["image"]), inputs))
print(len(net.conv._forward_hooks), net.conv.weight.grad, [p.dtype for p in net.parameters()][0])

class Words(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(10, 4, sparse=True)
        self.frozen = torch.nn.Linear(4, 2).requires_grad_(False)
    def forward(self, ids, *, scale):
        return {"logits": self.frozen(self.table(ids)) * scale, "cache": None}

words = Words()
call = lambda net, t: net(t["ids"], scale=2)
ids = {"ids": np.array([1, 2, 2])}
run = tapped(words, call, loss=lambda out, t: out["logits"].sum())
print(sorted(run(ids)), run(ids)["table.weight.grad"].dtype)  # nobody said float64
words.double()
print(run(ids)["output[logits]"].dtype)
print(parity(run, tapped(Words(), call, loss=lambda out, t: out["logits"].sum()), ids | words.state_dict()).reason)
half = Words()
half.load_state_dict(words.state_dict())
print(parity(tapped(words.double(), call), tapped(half.bfloat16(), call), ids, twins=[]).reason)
"""


def test_what_fits_neither_side_is_told_in_torch():
    lines = run_in("torch", TORCH + ODD).splitlines()
    assert lines[0] == str(sorted(tap for tap in TAPS if tap != "loss"))
    assert lines[1].startswith("input wanted was not used, and is no parameter of the module")
    assert lines[2].startswith("['act', ")  # the weights are the module's own, in float32 now
    assert lines[3].startswith("there is no input image (nearest: images); give it")
    assert lines[4].startswith("input mix.bais was not used, and is no parameter of the module; leave it out")
    assert lines[5].startswith("parameter norm.bias of the module is not among the inputs; give all of its parameters")
    assert lines[6].startswith("mix.bias has shape (4, 2) among the inputs and (4,) in the module; transpose it")
    assert lines[7].startswith("mix.weight and again.weight are tied in the module but differ among the inputs")
    assert lines[8].startswith("['act', ")  # by any of its names
    assert lines[9].startswith("the module has no cnv (nearest: conv)")
    assert lines[10].startswith("two parameters are both called again.weight by names=, one of them again.weight")
    assert lines[11].startswith("act is called loss, as is something else")
    shown = "\n".join(lines[12:])
    assert "the candidate: there is no input image (nearest: images)" in shown
    rest = lines[-5:]
    assert rest[0] == "0 None torch.float32"  # as the last call left it
    assert rest[1] == "['frozen', 'loss', 'output[logits]', 'table', 'table.weight.grad'] float32"
    assert rest[2] == "float64"
    assert rest[3] == "candidate: roundoff: 5 tensors compared"
    assert "is the size of bfloat16's roundoff (2^16 u)" in rest[4]


def test_mindspore_in_graph_mode_and_megengine_as_the_reference_are_refused():
    mindspore = run_in("mindspore", TORCH + PORTS["mindspore"] + """
import mindspore
mindspore.set_context(mode=mindspore.GRAPH_MODE)
print(parity(tapped(net, ["images"]), tapped(port, ["images"], **more), {"images": inputs["images"]}).reason)
""")  # fmt: skip
    assert "MindSpore calls no hooks in graph mode; first call mindspore.set_context(mode=" in mindspore
    megengine = run_in("megengine", TORCH + PORTS["megengine"] + """
print(parity(tapped(port, ["images"]), tapped(net, ["images"]), {"images": inputs["images"]}).reason)
""")  # fmt: skip
    assert "the reference: MegEngine has no float64, so that its module cannot be the reference" in megengine


def test_what_is_no_module_is_refused():
    class Layer:
        pass

    for given in (Layer(), np.ones(3), lambda inputs: inputs):
        with pytest.raises(
            Problem, match="is no module of torch, megengine, mindspore, oneflow; give parity a function"
        ):
            tapped(given, ["x"])
    module: Any = type("Net", (), {"__module__": "torch.nn"})
    with pytest.raises(Problem, match="forward is 'images'; give the names of the inputs in a list"):
        tapped(module(), "images")
