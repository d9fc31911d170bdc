"""What a porter gets wrong in the convolutional net, and which tensor has to be named for it."""

from __future__ import annotations

from functools import partial

from .planting import PORTS, RAISES, TF32, Fault, by_framework, changed, everywhere
from .settings import CLASSES

_conv = partial(Fault, net="conv")
_FUNCTIONS = {"torch": "F", "megengine": "F", "mindspore": "ops", "oneflow": "F"}
_PADDED = 'conv2d({}, t, "conv1", stride=2, padding={})'
_FLAT = {
    "torch": "x.flatten(1)", "megengine": "F.flatten(x, 1)", "mindspore": "ops.flatten(x)", "oneflow": "x.flatten(1)",
}  # fmt: skip
_POOL = {
    "torch": "F.max_pool2d(x, 2)", "megengine": "F.nn.max_pool2d(x, 2)", "mindspore": "ops.max_pool2d(x, 2, 2)",
    "oneflow": "F.max_pool2d(x, 2)",
}  # fmt: skip
_LOSS = {
    "torch": 'return cross_entropy(x, t["labels"])',
    "megengine": 'F.nn.cross_entropy(x, t["labels"])',
    "mindspore": 'ops.cross_entropy(x, t["labels"])',
    "oneflow": 'F.cross_entropy(x, t["labels"])',
}
_BACKWARD = {
    "torch": "autograd.grad(loss,", "megengine": "manager.backward(loss)", "mindspore": "return loss, out",
    "oneflow": "loss.backward()",
}  # fmt: skip
FAULTS = (
    _conv(
        name="padding on one side",
        tap="conv1",
        about='pad_mode="same" with a stride of 2 pads on the right and below only.',
        edits={
            framework: ((_PADDED.format('t["images"]', 1), _PADDED.format(padded, 0)),)
            for framework, padded in {
                "torch": 'F.pad(t["images"], (0, 1, 0, 1))',
                "megengine": 'F.nn.pad(t["images"], ((0, 0), (0, 0), (0, 1), (0, 1)))',
                "oneflow": 'F.pad(t["images"], (0, 1, 0, 1))',
            }.items()
        }
        | {"mindspore": (('stride, "pad", padding', 'stride, *(("same", 0) if stride == 2 else ("pad", padding))'),)},
    ),
    _conv(
        name="kernel transposed",
        tap="conv1",
        about="Height and width of the kernels were exchanged on the way, which no shape gives away.",
        inputs=changed("conv1.weight", lambda weight: weight.swapaxes(2, 3)),
    ),
    _conv(
        name="channels in the order BGR",
        tap="conv1",
        about="The images were read by OpenCV.",
        inputs=changed("images", lambda images: images[:, ::-1]),
    ),
    _conv(
        name="leaky relu",
        tap="relu",
        about="A slope of 0.01 below zero.",
        edits=by_framework(
            {name: f"{functions}.relu(x)" for name, functions in _FUNCTIONS.items()} | {"torch": "x.clamp(min=0)"},
            **{name: f"{functions}.leaky_relu(x, 0.01)" for name, functions in _FUNCTIONS.items()},
        ),
    ),
    _conv(
        name="average pool",
        tap="pool",
        about="The mean of a window was taken for its maximum.",
        edits={name: ((text, text.replace("max_pool", "avg_pool")),) for name, text in _POOL.items()},
    ),
    _conv(
        name="pool in ceil mode",
        tap="",
        about="The last row and column are pooled too, and the linear layer gets more than it takes.",
        edits={
            name: ((text, text.replace("2)", "2, ceil_mode=True)")),)
            for name, text in _POOL.items()
            if name != "megengine"  # which has no such mode
        },
        incomparable=RAISES,
    ),
    _conv(
        name="small bias of a convolution dropped",
        tap="conv2",
        about="It was built without a bias; the model's is about 0.003.",
        edits=everywhere(
            (
                'conv2d(x, t, "conv2", stride=1, padding=1)',
                'conv2d(x, t, "conv2", stride=1, padding=1) - t["conv2.bias"].reshape(1, -1, 1, 1)',
            )
        ),
    ),
    _conv(
        name="TF32 in a convolution",
        tap="conv2",
        about="What it multiplies is rounded to 11 bits.",
        edits=everywhere(('conv2d(x, t, "conv2"', f'conv2d({TF32.format("x")}, t, "conv2"')),
    ),
    _conv(
        name="flattened with the channels last",
        tap="logits",
        about="The axes of the image stand in the order of TensorFlow in front of the linear layer.",
        edits=by_framework(
            _FLAT,
            torch="x.permute(0, 2, 3, 1).flatten(1)",
            megengine="F.flatten(x.transpose(0, 2, 3, 1), 1)",
            mindspore="ops.flatten(x.permute(0, 2, 3, 1))",
            oneflow="x.permute(0, 2, 3, 1).flatten(1)",
        ),
    ),
    _conv(
        name="labels off by one",
        tap="loss",
        about="Classes were counted from 1.",
        inputs=changed("labels", lambda labels: (labels + 1) % CLASSES),
    ),
    _conv(
        name="cross entropy summed",
        tap="loss",
        about="The sum over the batch was taken for its mean.",
        edits={"torch": ((".squeeze(1)).mean()", ".squeeze(1)).sum()"),)}
        | {name: ((_LOSS[name], f'{_LOSS[name][:-1]}, reduction="sum")'),) for name in PORTS if name != "torch"},
    ),
    _conv(
        name="labels smoothed",
        tap="loss",
        about="The training recipe's label smoothing of 0.1 was left on.",
        edits=by_framework(
            _LOSS,
            torch='return F.cross_entropy(x, t["labels"], label_smoothing=0.1)',
            megengine='F.nn.cross_entropy(x, t["labels"], label_smooth=0.1)',
            mindspore='ops.cross_entropy(x, t["labels"], label_smoothing=0.1)',
            oneflow='F.cross_entropy(x, t["labels"], label_smoothing=0.1)',
        ),
    ),
    _conv(
        name="loss scale not taken out",
        tap="linear.bias.grad",
        about="The gradients were not divided by the 1024 that mixed precision multiplies the loss with.",
        edits=by_framework(
            _BACKWARD,
            torch="autograd.grad(1024 * loss,",
            megengine="manager.backward(1024 * loss)",
            mindspore="return 1024 * loss, out",
            oneflow="(1024 * loss).backward()",
        ),
    ),
)
