"""The same model ported to MindSpore."""

import mindspore
from mindspore import Tensor, ops


def run(inputs, pad_mode="pad"):
    """Tensors by name from arrays by name. pad_mode="same" is the planted fault: it pads on the right and below only."""
    images, labels = Tensor(inputs["images"]), Tensor(inputs["labels"].astype("int32"))
    names = [name for name in inputs if name not in ("images", "labels")]
    weights = [Tensor(inputs[name]) for name in names]

    def forward(*weights):
        w = dict(zip(names, weights))
        out = {}
        padding = 1 if pad_mode == "pad" else 0
        x = out["conv1"] = ops.conv2d(images, w["conv1.weight"], w["conv1.bias"], 2, pad_mode, padding)
        x = out["relu"] = ops.relu(x)
        x = out["pool"] = ops.max_pool2d(x, 2, 2)
        x = out["conv2"] = ops.conv2d(x, w["conv2.weight"], w["conv2.bias"], 1, "pad", 1)
        x = out["logits"] = ops.dense(x.reshape(len(x), -1), w["linear.weight"], w["linear.bias"])
        return ops.cross_entropy(x, labels), out

    positions = tuple(range(len(names)))
    (loss, out), gradients = mindspore.value_and_grad(forward, positions, None, has_aux=True)(*weights)
    named = {f"{name}.grad": gradient for name, gradient in zip(names, gradients)}
    return {name: tensor.asnumpy() for name, tensor in {**out, "loss": loss, **named}.items()}
