"""Faults of a training that `polymae preflight` must find, as edits of the source: located_at is the check that finds it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from mutants import FAULTS as PLANTED
from mutants.planting import Edit, Fault, in_all, in_each

from polymae.backends import FRAMEWORKS

_fault = partial(Fault, level="preflight")
_BETAS = "beta1, beta2 = self.settings.betas"
_DECAY = "0.0 if p.name in spared else settings.weight_decay"
_ON = ("allow_tf32: bool = False", "allow_tf32: bool = True")
_KEEP = "        K = keep_length(L, mask_ratio)\n"


def _drawn(expression: str) -> tuple[str, str]:
    """Noise that a model draws by itself, whatever it is given."""
    return _KEEP, f"{_KEEP}        noise = {expression}\n"


LISTED = (
    _fault(
        "decay of biases and norms",
        located_at="optimizer",
        about="One group for all parameters, as optimizers have by default.",
        edits=in_all("backends.optimization", (_DECAY, "settings.weight_decay")),
    ),
    _fault(
        "tokens spared from decay",
        located_at="optimizer",
        about="The fine-tuning rule was taken for pre-training's.",
        edits=in_all("backends.optimization", (_DECAY, _DECAY.replace("spared", 'spared or "token" in p.name'))),
    ),
    _fault(
        "betas swapped",
        located_at="optimizer",
        about="The second moment's beta is the first one's.",
        edits=in_each(
            "optimizer",
            torch=("betas=settings.betas", "betas=settings.betas[::-1]"),
            **dict.fromkeys([name for name in FRAMEWORKS if name != "torch"], (_BETAS, f"{_BETAS}[::-1]")),
        ),
    ),
    _fault(
        "betas swapped in the recipe",
        located_at="optimizer",
        about="The recipe hands them on in another order.",
        edits=in_all("training.recipe", ("Settings(given.betas,", "Settings(given.betas[::-1],")),
    ),
    _fault(
        "bias correction a step ahead",
        located_at="optimizer",
        about="Steps are counted from 1 before the first is made, and once more in it.",
        edits=in_each(
            "optimizer",
            torch=("float(state.step)", "1.0 + state.step"),
            **dict.fromkeys(
                [name for name in FRAMEWORKS if name != "torch"],
                ("bias1, bias2 = ", "self.steps += 1\n        bias1, bias2 = "),
            ),
        ),
    ),
    _fault(
        "gradients not clipped",
        located_at="update",
        about="The norm is computed, and nothing is done with it.",
        edits=in_all("backends.optimization", ("return 1.0 if settings.clip is None else", "return 1.0 or")),
    ),
    _fault(
        "loop a step ahead of the schedule",
        located_at="schedule",
        about="The first step has the rate of the second.",
        edits=in_all("training.loop", ("self.schedule.rate(step)", "self.schedule.rate(step + 1)")),
    ),
    _fault(
        "schedule a step ahead",
        located_at="schedule",
        about="The epoch is counted from 1 step.",
        edits=in_all(
            "backends.optimization", ("epoch = step / self.steps_per_epoch", "epoch = (step + 1) / self.steps_per_epoch")
        ),
    ),
    _fault(
        "warm-up counted in steps",
        located_at="schedule",
        about="Epochs of the warm-up were taken for steps.",
        edits=in_all("training.recipe", ("given.warmup_epochs,", "given.warmup_epochs / steps_per_epoch,")),
    ),
    _fault(
        "masks of another generator",
        located_at="masks",
        about="NumPy's usual generator draws the noise.",
        edits=in_all(
            "data.draws",
            (
                'generator(seed, "mask", epoch, index).random(num_patches)',
                "np.random.default_rng(index).random(num_patches)",
            ),
        ),
    ),
    _fault(
        "masks of the crops' numbers",
        located_at="masks",
        about="Masks and crops take the same random numbers.",
        edits=in_all("data.draws", ('generator(seed, "mask", epoch', 'generator(seed, "crop", epoch')),
    ),
    _fault(
        "masks drawn by the model",
        located_at="masks",
        about="The model draws noise of its own, and leaves what it is given.",
        edits=in_each(
            "model",
            numpy=_drawn("np.random.random((N, L)).astype(np.float32)"),
            torch=_drawn("torch.rand(N, L, dtype=torch.float32, device=x.device)"),
            megengine=_drawn("mge.random.uniform(size=(N, L)).to(x.device)"),
            mindspore=_drawn("ops.rand(N, L, dtype=ms.float32)"),
            oneflow=_drawn("flow.rand(N, L, dtype=flow.float32, device=x.device)"),
        ),
    ),
    _fault(
        "first batch in every step",
        located_at="batches",
        about="The place in the epoch was left out.",
        edits=in_all("data.batches", ("first, rows = position * self.batch_size,", "first, rows = 0,")),
    ),
    _fault(
        "images drawn with replacement",
        located_at="batches",
        about="Each place of an epoch draws any image.",
        edits=in_all(
            "data.draws", ('np.argsort(keys, kind="stable").astype(np.int64, copy=False)', "(keys * count).astype(np.int64)")
        ),
    ),
    _fault(
        "the same order in every epoch",
        located_at="batches",
        about="The epoch was left out of the key.",
        edits=in_all("data.draws", ('generator(seed, "order", epoch, 0)', 'generator(seed, "order", 0, 0)')),
    ),
    _fault(
        "workers that put images in other places",
        located_at="batches",
        about="Threads fill a batch from its end.",
        edits=in_all(
            "data.loader", ("fill(batch, start,", "fill({name: array[::-1] for name, array in batch.items()}, start,")
        ),
    ),
    _fault(
        "TF32 on",
        located_at="tf32",
        about="The set-up leaves on what it has to switch off; MegEngine and MindSpore as on a GPU.",
        edits={
            "numpy": (Edit("runtime", '"tf32": False', '"tf32": True'),),
            "torch": (Edit("runtime", *_ON),),
            "megengine": (Edit("runtime", *_ON), Edit("runtime", 'device == "cuda" and os.environ', "os.environ")),
            "mindspore": (Edit("runtime", *_ON), Edit("runtime", 'device != "cpu" and _tf32', "_tf32")),
            "oneflow": (Edit("runtime", *_ON),),
        },
    ),
    _fault(
        "wrong mean",
        located_at="normalisation",
        about="One half, the mean of other models.",
        edits=in_all("data.images", ("np.float32(mean[channel])", "np.float32(0.5)")),
    ),
    _fault(
        "ImageNet's mean whatever the recipe says",
        located_at="normalisation",
        about="The recipe's mean is not handed on.",
        edits=in_all("training.recipe", ("return given\n    return imagenet if", "pass\n    return imagenet if")),
    ),
    _fault(
        "pixels divided by 256",
        located_at="normalisation",
        about="The number of values was taken for the largest.",
        edits=in_all("data.images", ("np.float32(255)", "np.float32(256)")),
    ),
    _fault(
        "gradients of half the batch",
        located_at="gradients",
        about="The loss of parts is divided by their number twice.",
        edits=in_all("training.steps", ("batch.items()}, share,", "batch.items()}, share / 2,")),
    ),
    replace(PLANTED["noise of the first batch in all"], located_at="curve"),
    replace(PLANTED["adam eps of MindSpore"], located_at="optimizer"),
    _fault(
        "noise of other images",
        located_at="loop",
        about="The loop hands the noise of another image to the model.",
        edits=in_all("training.steps", ("array[part] for", '(array[::-1] if name == "noise" else array)[part] for')),
    ),
    _fault(
        "moments forgotten in checkpoints",
        located_at="resume",
        about="A resumed run begins with moments of zero.",
        edits=in_all("training.loop", ("if moments is not None:", "if False:")),
    ),
    _fault(
        "a resumed run begins its data anew",
        located_at="resume",
        about="The loader begins with the first batch.",
        edits=in_all("training.loop", ("self.step = facts.step\n", "self.step, self.batches.seed = facts.step, 1\n")),
    ),
)  # fmt: skip
FAULTS = {fault.name: fault for fault in LISTED} | {"none": Fault("none", "preflight", "", "no fault")}
