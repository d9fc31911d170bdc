"""Hugging Face transformers and timm for real: their files run here, ours run there, and the outputs are the same.

Same means: both are as near to the float64 oracle as float32 can be (compare/limits/tolerance.py).
"""

import shutil

import numpy as np
import pytest
from checkpoints import ENDINGS
from third_party import OTHERS, Arrays, Other

from polymae.backends.numpy.sums import summed_in_chains
from polymae.cli.convert_weights import main as convert
from polymae.compare.limits.metrics import error
from polymae.compare.limits.tolerance import scalar_limit, tensor_limit
from polymae.convert.checkpoint import open_checkpoint
from polymae.convert.writing import official_checkpoint

EXACT = ("mask", "ids_restore")


@pytest.fixture(params=OTHERS)
def other(request):
    return OTHERS[request.param]


def over_the_limit(found: Arrays, other: Other, weights: Arrays) -> dict[str, float]:
    """The outputs that are further from the oracle than roundoff explains, with their error as a share of the limit."""
    oracle = other.ours("numpy", weights, "float64")
    twins = []
    for seed in (1, 2):
        with summed_in_chains(seed):
            twins.append(other.ours("numpy", weights))
    blocks = other.config.depth + getattr(other.config, "decoder_depth", 0)
    wrong = {}
    for name, array in found.items():
        assert array.shape == oracle[name].shape, name
        if name in EXACT:
            if not np.array_equal(array, oracle[name]):
                wrong[name] = np.inf
            continue
        floors = [error(twin[name], oracle[name]) for twin in twins]
        limit = tensor_limit(array.size, floors, blocks) if array.ndim else scalar_limit(floors, blocks)
        ratio = error(array, oracle[name]) / limit.value
        if not ratio <= 1:
            wrong[name] = ratio
    return wrong


def opened(other: Other, path) -> Arrays:
    """The weights of a file as the converter reads them. Hugging Face's config.json says what the model is."""
    checkpoint = open_checkpoint(path)
    config = checkpoint.resolve(None if checkpoint.dialect.startswith("huggingface") else other.model).config
    assert config == other.config
    return checkpoint.weights(config, other.encoder_only)


def converted(other: Other, target: str, source, output):
    arguments = [target, "-c", source, "-o", output, "-m", other.model]
    assert convert([str(argument) for argument in arguments] + ["--encoder-only"] * other.encoder_only) == 0
    return output


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """What each of their models saved and what it computed, made once."""
    kept = {}

    def saved(other: Other):
        if id(other) not in kept:
            model = other.made()
            path = other.save(model, tmp_path_factory.mktemp("theirs") / "model")
            kept[id(other)] = path, other.run(model, other.inputs())
        return kept[id(other)]

    return saved


def test_their_checkpoint_computes_the_same_here(other, framework, theirs, tmp_path):
    """From their file into the framework's own, which its own loader reads."""
    path, expected = theirs(other)
    weights = opened(other, path)
    assert not over_the_limit(expected, other, weights)
    native = converted(other, framework, path, tmp_path / f"native{ENDINGS.get(framework, '.npz')}")
    if other.encoder_only:  # half a model, which the loaders refuse
        found = other.ours(framework, opened(other, native))
    else:
        found = other.ours(framework, weights, path=native)
    assert not over_the_limit({name: found[name] for name in expected}, other, weights)


def test_our_checkpoint_computes_the_same_there(other, tmp_path, capsys):
    """Every key is expected, none is missing, and the outputs are ours."""
    weights = other.our_weights()
    official_checkpoint(tmp_path / "official.pth", other.config, weights)
    name = "folder" if other.library == "huggingface" else "model.safetensors"
    output = converted(other, other.library, tmp_path / "official.pth", tmp_path / name)
    assert not over_the_limit(other.run(other.load(output), other.inputs()), other, weights)


def norm_eps(model):
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-5


def tanh_gelu(model):
    import torch

    for module in model.modules():
        for name in ("act", "activation_fn"):
            if hasattr(module, name):
                setattr(module, name, torch.nn.GELU("tanh"))


def transposed(model):
    name, weight = next(
        (n, p) for n, p in model.named_parameters() if n.endswith(("o_proj.weight", "attn.proj.weight"))
    )
    weight.data = weight.data.T.contiguous()


@pytest.mark.parametrize("fault", [norm_eps, tanh_gelu, transposed])
def test_a_fault_is_seen(other, fault, theirs):
    """The limits above are not idle: what a wrong converter or a port gets wrong is over them, and by far."""
    path, _ = theirs(other)
    model = other.made()
    fault(model)
    wrong = over_the_limit(other.run(model, other.inputs()), other, opened(other, path))
    assert max(wrong.values(), default=0) > 10


SAVED = {
    "sharded": {"max_shard_size": "100KB"},
    "names-of-5": {"save_original_format": False},
    "sharded-names-of-5": {"max_shard_size": "100KB", "save_original_format": False},
    "pickle": None,
}


@pytest.mark.parametrize("how", SAVED)
@pytest.mark.parametrize("name", [name for name, other in OTHERS.items() if other.library == "huggingface"])
def test_every_way_of_saving_holds_the_same(name, how, theirs, tmp_path):
    """Shards with an index, the names of either generation, and the pytorch_model.bin of earlier years."""
    path, _ = theirs(OTHERS[name])
    again = tmp_path / "again"
    if SAVED[how]:
        OTHERS[name].made().save_pretrained(again, **SAVED[how])
    else:
        import safetensors.torch
        import torch

        again.mkdir()
        torch.save(safetensors.torch.load_file(path), again / "pytorch_model.bin")
        shutil.copy(path.with_name("config.json"), again)
        again /= "pytorch_model.bin"
    checkpoint = open_checkpoint(again)
    assert checkpoint.hash == open_checkpoint(path).hash
    assert checkpoint.resolve().config == OTHERS[name].config
