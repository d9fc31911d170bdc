"""encode: the features of whole images; and what a model says of inputs that it cannot take."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from frameworks import frameworks_under_test
from in_use import CONFIG, VIT, Model, called, images, noise
from mutants.models import trained_weights
from numpy.typing import NDArray

from polymae.backends.inputs import InputError, check_shapes
from polymae.backends.runtime import load_backend
from polymae.compare.limits.metrics import error

POOLED = {"cls": lambda x: x[:, 0], "gap": lambda x: x[:, 1:].mean(axis=1), "tokens": lambda x: x, None: lambda x: x}
Array = NDArray[Any]


def oracle(imgs: Array) -> Array:
    """Every token after the norm, the class token first, of the float64 forward pass in which nothing is masked."""
    runtime = load_backend("numpy")
    model = runtime.build(CONFIG, trained_weights(CONFIG), dtype="float64")
    x, _, ids_restore = model.forward_encoder(imgs.astype(np.float64), noise(len(imgs)), 0.0, {})
    return np.concatenate([x[:, :1], np.take_along_axis(x[:, 1:], ids_restore[:, :, None], axis=1)], axis=1)


@pytest.mark.parametrize("pooling", POOLED)
def test_features_are_those_of_the_oracle(framework: str, pooling: str | None) -> None:
    found = Model(framework).encode(images(), pooling)
    assert found.dtype == np.float32
    expected = POOLED[pooling](oracle(images()))
    assert found.shape == expected.shape
    assert error(found, expected) < 16  # units of roundoff; 2.9 to 7.0 were measured
    assert error(found[:, ::-1], expected) > 1e5


def test_the_class_token_is_the_default(framework: str) -> None:
    model = Model(framework)
    assert np.array_equal(model.encode(images()), model.encode(images(), "cls"))


@pytest.mark.parametrize("masking", ["shuffled", "raster"])
def test_nothing_is_drawn(framework: str, masking: str) -> None:
    model = Model(framework, replace(CONFIG, masking=masking))
    both = model.encode(images(), "tokens")
    assert np.array_equal(model.encode(images(), "tokens"), both)
    assert error(model.encode(images()[1:], "tokens"), both[1:].astype(np.float64)) < 16


@pytest.mark.parametrize("pooling", ["cls", "gap", "mean"])
def test_a_classifier_gives_what_its_head_gets(framework: str, pooling: str) -> None:
    classifier = Model(framework, replace(VIT, pooling=pooling))
    found = classifier.encode(images())
    inputs = {"imgs": images(), "labels": np.array([3, 1])}
    assert np.array_equal(found, classifier.runtime.run(classifier.model, inputs).taps["latent"])
    if pooling == "cls":
        assert error(found, Model(framework).encode(images(), "cls").astype(np.float64)) < 16


def test_features_meet_other_tensors_rightly(framework: str) -> None:
    """As a slice of the tokens they would not in MegEngine: see contiguous() in its layers."""
    bias = np.arange(48, dtype=np.float32)
    for model in (Model(framework), Model(framework, replace(VIT, pooling="cls"))):
        features = model.model.encode(model.tensor(images()))
        assert np.array_equal(
            model.runtime.to_numpy(features + model.tensor(bias)), model.runtime.to_numpy(features) + bias
        )


def test_another_pooling_is_refused(framework: str) -> None:
    with pytest.raises(InputError, match="'max'; it must be 'cls' .* 'gap' .* 'tokens'"):
        Model(framework).encode(images(), "max")


REFUSED: dict[str, tuple[Any, str]] = {
    "upstream's order": (
        lambda m: m(images(), 0.5),
        r"is the noise \[N, L\], not 0.5; .* model\(imgs, mask_ratio=0.5\)",
    ),
    "noise of another batch": (lambda m: m(images(), noise(1)), r"noise is \[1, 16\]; it must be \[2, 16\]"),
    "noise of the whole model": (lambda m: m(images(), noise()[0]), r"noise is \[16\]; it must be \[2, 16\]"),
    "one image": (lambda m: m(images()[0]), r"imgs is \[3, 32, 32\]; .*\[N, 3, 32, 32\].* imgs\[None\]"),
    "channels last": (lambda m: m(images().transpose(0, 2, 3, 1)), r"imgs is \[2, 32, 32, 3\]; .* channels first"),
    "grey": (lambda m: m(images()[:, :1]), r"imgs is \[2, 1, 32, 32\]; the model takes \[N, 3, 32, 32\]"),
    "larger": (
        lambda m: m(np.zeros((1, 3, 48, 48), np.float32), noise(1)),
        r"Input image size \(48\*48\) doesn't match model \(32\*32\)\. Resize .* image_size=48\.",
    ),
    "to encode": (
        lambda m: m.encode(np.zeros((1, 3, 48, 64), np.float32)),
        r"Input image size \(48\*64\) doesn't match model .* image_size=\(48, 64\)\.",
    ),
    "nothing masked away": (lambda m: m(images(), mask_ratio=1.0), "keeps none of 16 patches"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_model_cannot_take_is_named(framework: str, what: str) -> None:
    call, message = REFUSED[what]
    with pytest.raises(ValueError, match=message):
        call(Model(framework))


def test_a_classifier_says_the_same(framework: str) -> None:
    model = Model(framework, VIT)
    for call in (model, model.encode):
        with pytest.raises(InputError, match=r"\(40\*32\) doesn't match model \(32\*32\)"):
            call(np.zeros((1, 3, 40, 32), np.float32))


def test_no_advice_that_does_not_help() -> None:
    with pytest.raises(InputError, match=r"Resize or crop the images\.$"):
        check_shapes((1, 3, 30, 30), None, None, CONFIG)  # no model of this patch size takes 30 pixels
    with pytest.raises(InputError, match="imgs is a int, not a tensor"):
        check_shapes(3, None, None, CONFIG)
    check_shapes((None, 3, 32, 32), (2, 16), None, CONFIG)  # MindSpore's word for a size known later


NAMESPACE = {"numpy": "numpy", "torch": "torch", "megengine": "megengine.functional", "mindspore": "mindspore.ops"}


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_the_noise_that_is_drawn_is_float32(framework: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16 it would have ties, and float64 would draw other masks from the same seed."""
    if (framework, dtype) in [("megengine", "float64")] or (dtype == "bfloat16" and framework != "torch"):
        with pytest.raises(Exception, match=dtype):
            Model(framework, dtype=dtype)
        return
    model = Model(framework, dtype=dtype)
    library = __import__(NAMESPACE.get(framework, framework), fromlist=["argsort"])
    sorted_first, argsort = [], library.argsort

    def spy(values: Any, *arguments: Any, **named: Any) -> Any:
        sorted_first.append(values)
        return argsort(values, *arguments, **named)

    monkeypatch.setattr(library, "argsort", spy)
    _, _, mask = model(images())
    assert "float32" in str(sorted_first[0].dtype).lower()
    assert mask.sum(axis=1).tolist() == [12, 12]
    assert np.array_equal(np.sort(mask, axis=None), np.repeat([0, 1], [8, 24]))


SEEDS = {
    "numpy": lambda seed: np.random.seed(seed),
    "torch": lambda seed: __import__("torch").manual_seed(seed),
    "megengine": lambda seed: __import__("megengine").random.seed(seed),
    "mindspore": lambda seed: __import__("mindspore").set_seed(seed),
    "oneflow": lambda seed: __import__("oneflow").manual_seed(seed),
}


def test_random_masks_follow_the_seed_of_the_framework(framework: str) -> None:
    model, drawn = Model(framework), []
    for seed in (3, 4, 3):
        SEEDS[framework](seed)
        drawn.append([model(images())[2] for _ in range(2)])
    first, other, again = drawn
    assert all(map(np.array_equal, first, again))
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], other[0])
    assert model(images(1), mask_ratio=0.5)[2].sum() == 8


def test_the_noise_has_a_name(framework: str) -> None:
    model = Model(framework)
    given = model.tensor(noise())
    named = model(images(), noise=given, mask_ratio=0.5)
    assert all(map(np.array_equal, named, model(images(), given, 0.5)))


def test_a_numpy_model_is_pickled() -> None:
    model = Model("numpy").model
    copied = pickle.loads(pickle.dumps(model))
    for mine, theirs in zip(model(images(), noise()), copied(images(), noise())):
        assert np.array_equal(mine, theirs)
    copied.cls_token += 1
    assert not np.array_equal(model.encode(images()), copied.encode(images()))


def test_bytes_and_no_images_are_refused(framework: str) -> None:
    """MegEngine would compute with bytes as if they were normalised, and end the process for an empty batch."""
    model = Model(framework)
    with pytest.raises(InputError, match=r"(?i)imgs is .*int.*floating point: pixels from 0 to 1"):
        model.model(model.tensor(np.zeros((1, 3, 32, 32), np.int32)))
    with pytest.raises(InputError, match="without an image"):
        check_shapes((0, 3, 32, 32), None, None, CONFIG)


@pytest.mark.parametrize("framework", [name for name in frameworks_under_test() if name != "numpy"])
def test_a_numpy_array_is_told(framework: str) -> None:
    model, imgs, given = called(framework)
    for wrong in ((images(), given), (imgs, noise())):
        with pytest.raises(
            InputError, match=r"(imgs|noise) is a NumPy array; the model takes tensors of its framework"
        ):
            model(*wrong)
