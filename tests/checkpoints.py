"""A small model's checkpoint in the official layout, and running convert_weights on what should be refused."""

from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest

from polymae import cli
from polymae.backends.initial import initial_weights
from polymae.backends.presets import model_config
from polymae.backends.spec import encoder_params
from polymae.cli.convert_weights import main as convert
from polymae.convert.formats import pth
from polymae.convert.tensors import State, Tensor
from polymae.convert.writing import official_checkpoint
from polymae.files.errors import Problem

MODEL = "mae_vit_test_patch8"
CONFIG = model_config(MODEL)
WEIGHTS = initial_weights(CONFIG, seed=2)
ENCODER = {param.name: WEIGHTS[param.name] for param in encoder_params(CONFIG)}
ENDINGS = {"torch": ".pth", "megengine": ".pkl", "mindspore": ".ckpt", "oneflow": ""}
SIZES = "img_size=32,patch_size=8,embed_dim=48,depth=3,num_heads=3,decoder_embed_dim=32,decoder_depth=2"


@pytest.fixture
def official(tmp_path):
    path = tmp_path / "in" / "official.pth"
    official_checkpoint(path, CONFIG, WEIGHTS)
    return path


@pytest.fixture(params=ENDINGS)
def into(request):
    return request.param


def raw_pth(path, arrays):
    """A .pth of any names, shapes and values, with no check."""
    path.parent.mkdir(exist_ok=True)
    tensors = {n: Tensor(a.shape, a.dtype.name, partial(np.asarray, a)) for n, a in arrays.items()}
    pth.write(path, State(tensors, wrapper="model"), lambda done: None)
    return path


@contextmanager
def refuses(code, match=""):
    """Within this context a Problem of this code must be raised; gives it as pytest.raises does."""
    with pytest.raises(Problem, match=match) as caught:
        yield caught
    assert caught.value.code == code, caught.value


class Refusal(str):
    """What convert_weights printed, and the problem's code (None: its arguments could not be parsed)."""

    code = None


def refused(capsys, *arguments):
    """Run convert_weights, see it fail with status 2 and no traceback, and give its Refusal."""
    capsys.readouterr()
    problems, in_words = [], cli.in_words
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cli, "in_words", lambda problem: in_words(problems.append(problem) or problem))
        try:
            status = convert([str(argument) for argument in arguments])
        except SystemExit as left:
            status = left.code
    out, err = capsys.readouterr()
    assert status == 2
    assert "Traceback" not in err
    assert "wrote" not in out
    message = Refusal(err)
    message.code = getattr(problems[0], "code", type(problems[0]).__name__) if problems else None
    return message
