"""Judge the port: once as it should be, once with another padding."""

import functools

import mindspore_net
import torch_net
from setting import gradients, inputs, taps

from polymae.compare import parity

same_padding = functools.partial(mindspore_net.run, pad_mode="same")
for label, port in {"MindSpore": mindspore_net.run, 'MindSpore with pad_mode="same"': same_padding}.items():
    print(parity(torch_net.run, port, inputs, taps, gradients=gradients, label=label), end="\n\n")
