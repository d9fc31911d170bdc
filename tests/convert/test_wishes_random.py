"""Random conversions one after the other, each with a wish: the last file is what the wishes make of the weights in memory."""

import shutil
import tempfile
from pathlib import Path

from drawn import examples
from hypothesis import given
from hypothesis import strategies as st
from matrix import WRITTEN, as_model, name_of, refusal, written
from test_matrix_random import HOLDS_BFLOAT16, models, random_weights

from polymae.convert.checkpoint import open_checkpoint
from polymae.convert.conversion import Wish, convert, prepare
from polymae.convert.dialects import DIALECTS
from polymae.convert.hashing import hash_tensors
from polymae.convert.resolve import unlike

DTYPES = ["float32", "float16", "bfloat16"]


def wishes(weights):
    """What can be asked of such weights: fields of a Wish."""
    patch = weights.config.patch_size
    sizes = st.tuples(*[st.integers(1, 3).map(lambda n: n * patch)] * 2)
    kinds = [st.fixed_dictionaries({"dtype": st.sampled_from(DTYPES)}), st.just({})]
    if weights.config.positions == "2d":
        kinds.append(st.fixed_dictionaries({"image_size": sizes}))
    if weights.contents == "mae":
        kinds.append(st.just({"encoder_only": True}))
    kinds.append(st.fixed_dictionaries({"num_classes": st.integers(1, 6)}))
    return st.one_of(kinds)


def granted(weights, wish):
    """What a wish makes of the weights, in memory."""
    if weights.contents == "mae" and (wish.get("encoder_only") or "num_classes" in wish):
        names = {p for p in weights.tensors if not p.startswith(("decoder_", "mask_token", "patch_norm.", "unconv."))}
        weights = type(weights)(
            weights.config, "encoder", {n: weights.tensors[n] for n in weights.tensors if n in names}
        )
    if "num_classes" in wish:
        weights = weights.with_classes(wish["num_classes"])
    if "image_size" in wish:
        weights = weights.with_image_size(wish["image_size"])
    return weights.with_dtype(wish["dtype"]) if "dtype" in wish else weights


def expressible(weights):
    """The dialects and formats that such weights can be written in."""
    (dtype,) = {tensor.dtype for tensor in weights.tensors.values()}
    able = [name for name in DIALECTS if not refusal(name, weights) and not (name == "flyegle" and dtype != "float32")]
    return able, [form for form in WRITTEN if dtype != "bfloat16" or form in HOLDS_BFLOAT16]


@examples(30)
@given(model=models(), data=st.data(), seed=st.integers(0, 2**32))
def test_random_wishes_one_after_the_other(model, data, seed):
    weights = random_weights(*model, "float32", seed)
    folder = Path(tempfile.mkdtemp())
    try:
        (able, forms), known = expressible(weights), as_model(weights.config)
        dialect, form = data.draw(st.sampled_from(able)), data.draw(st.sampled_from(forms))
        path = written(folder / "first", weights, dialect, form)
        source, alone = dialect, weights.contents == "encoder"
        for number in range(data.draw(st.integers(1, 4))):
            wish = data.draw(wishes(weights))
            weights = granted(weights, wish)
            able, forms = expressible(weights)
            dialect, form = data.draw(st.sampled_from(able)), data.draw(st.sampled_from(forms))
            (folder / str(number)).mkdir()
            target = folder / str(number) / name_of(form)
            asked = Wish(known, source, **{"encoder_only": alone, **wish})
            assert convert(prepare(path, asked), dialect, form, target) == hash_tensors(weights.tensors).content
            path, known, source, alone = target, None, None, False
        found = open_checkpoint(path)
        assert found.contents == weights.contents
        assert found.hash == hash_tensors(weights.tensors).content
        assert not unlike(found.config, weights.config, weights.contents)
    finally:
        shutil.rmtree(folder)
