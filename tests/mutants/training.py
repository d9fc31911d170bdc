"""Faults of the optimizer, its decay groups, the schedule and the training loop."""

from __future__ import annotations

from functools import partial

from .planting import Fault, Pair, in_all, in_each

_fault = partial(Fault, level="optimizer")

_DECAY = "0.0 if p.name in spared else settings.weight_decay"
_OTHERS = ("numpy", "megengine", "mindspore", "oneflow")
_CLIP = "return 1.0 if settings.clip is None else min(1.0, settings.clip / (norm + 1e-6))"
_BY_ITS_OWN = "min(1.0, (self.settings.clip or 1e30) / (self.norm([each]) + 1e-6))"


def _adam(torch: Pair, *others: Pair) -> dict[str, tuple[Pair, ...]]:
    """An edit of torch's own AdamW, and what does the same in those written by hand."""
    return {"torch": (torch,), **dict.fromkeys(_OTHERS, others)}


ADAM = (
    _fault(
        "adam eps of MindSpore",
        located_at="optimizer/first/update/cls_token",
        about="MindSpore's default, 1e-6, was left for 1e-8.",
        size=1e-6 - 1e-8,
        edits=in_each("optimizer", **_adam(("eps=settings.eps", "eps=1e-6"), ("self.settings.eps", "1e-6"))),
    ),
    _fault(
        "adam betas of fine-tuning",
        located_at="optimizer/first/v/cls_token",
        about="The default (0.9, 0.999) was left for pre-training's (0.9, 0.95).",
        size=0.049,
        edits=in_each(
            "optimizer",
            **_adam(
                ("betas=settings.betas", "betas=(0.9, 0.999)"),
                ("beta1, beta2 = self.settings.betas", "beta1, beta2 = 0.9, 0.999"),
            ),
        ),
    ),
    _fault(
        "no bias correction",
        located_at="optimizer/first/update/cls_token",
        about="MindSpore's nn.AdamWeightDecay has none.",
        edits=in_each(
            "optimizer",
            **_adam(
                ("float(state.step)", "1e6 + state.step"),
                ("1 - beta1**self.steps, 1 - beta2**self.steps", "1.0, 1.0"),
            ),
        ),
    ),
    _fault(
        "bias correction a step ahead",
        located_at="optimizer/first/update/cls_token",
        about="Steps are counted from 1 before the first is made, and once more in it.",
        edits=in_each(
            "optimizer",
            **_adam(
                ("float(state.step)", "1.0 + state.step"),
                ("bias1, bias2 = 1", "self.steps += 1\n        bias1, bias2 = 1"),
            ),
        ),
    ),
    _fault(
        "decay coupled to the gradient",
        located_at="optimizer/first/m/cls_token",
        about="Adam with L2 regularisation was taken for AdamW.",
        edits=in_each(
            "optimizer",
            **_adam(
                ("torch.optim.AdamW(", "torch.optim.Adam("),
                ("scale * gradients[i]", "scale * gradients[i] + group.decay * parameters[i]"),
                ("(direction + ", "(direction + 0 * "),
            ),
        ),
    ),
    _fault(
        "gradients clipped tensor by tensor",
        located_at="optimizer/later/m/cls_token",
        about="Every tensor of the update is clipped by its own norm, not by that of all together.",
        edits=in_each(
            "optimizer",
            **_adam(
                (
                    "        if scale != 1.0:\n            torch._foreach_mul_(gradients, scale)",
                    f"        torch._foreach_mul_(gradients, [{_BY_ITS_OWN} for each in gradients])",
                ),
                (
                    "self.move(gradients, lr, scale, ",
                    f"self.move([{_BY_ITS_OWN} * each for each in gradients], lr, 1.0, ",
                ),
            ),
        ),
    ),
    _fault(
        "gradients not clipped",
        located_at="optimizer/later/m/cls_token",
        about="The norm is computed, and nothing is done with it.",
        edits=in_all("backends.optimization", (_CLIP, "return 1.0")),
    ),
)

GROUPS = (
    _fault(
        "decay of biases and norms",
        located_at="optimizer/decay",
        about="One group for all parameters, as optimizers have by default.",
        edits=in_all("backends.optimization", (_DECAY, "settings.weight_decay")),
    ),
    _fault(
        "tokens spared from decay",
        located_at="optimizer/decay",
        about="The fine-tuning rule, which spares the tokens, was taken for pre-training's.",
        edits=in_all("backends.optimization", (_DECAY, _DECAY.replace("spared", 'spared or "token" in p.name'))),
    ),
    _fault(
        "fixed positions trained",
        located_at="optimizer/decay",
        about="Nothing kept the sin-cos tables from the optimizer.",
        edits=in_all("backends.optimization", ("if param.trainable", "if True")),
        needs={"train_positions": False},
    ),
)

SCHEDULE = (
    _fault(
        "schedule a step ahead",
        located_at="optimizer/lr",
        about="The first step has the rate of the second.",
        edits=in_all("compare.levels.small", ("SCHEDULE.rate(step)", "SCHEDULE.rate(step + 1)")),
    ),
    _fault(
        "schedule by epochs",
        located_at="optimizer/lr",
        about="The rate changes once an epoch, not with every step.",
        edits=in_all("compare.levels.small", ("SCHEDULE.rate(step)", "SCHEDULE.rate(step - step % 10)")),
    ),
    _fault(
        "no warm-up",
        located_at="optimizer/lr",
        about="The cosine begins at its top.",
        edits=in_all("compare.levels.small", ("warmup_epochs=2", "warmup_epochs=1e-9")),
    ),
    _fault(
        "moments forgotten at every epoch",
        level="curve",
        located_at="curve/loss",
        about="A new optimizer is made where an epoch begins.",
        edits=in_all(
            "compare.levels.curve",
            (
                "        batch = training_batch(config, step, given)",
                "        training.optimizer = training.optimizer if step % 10 else runtime.optimizer(model, small.SETTINGS)\n"
                "        batch = training_batch(config, step, given)",
            ),
        ),
    ),
    _fault(
        "noise of the first batch in all",
        level="curve",
        located_at="curve/loss",
        about="The mask's random numbers were drawn once, in front of the loop.",
        edits=in_all(
            "compare.levels.curve",
            (
                "batch = training_batch(config, step, given)",
                "batch = training_batch(config, 0, given) | {'imgs': training_batch(config, step, given)['imgs']}",
            ),
        ),
    ),
)

FAULTS = (*ADAM, *GROUPS, *SCHEDULE)
