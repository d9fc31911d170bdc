"""Every dialect to every dialect that can express it and back, with probes: each element's way is known."""

from itertools import count

import pytest
from matrix import (
    CASES,
    WRITTEN,
    as_model,
    converted,
    expressible,
    in_place,
    pairs,
    pairs_to_run,
    probe,
    stored,
    written,
)

from polymae.convert.conversion import Wish, convert, prepare
from polymae.convert.dialects import DIALECTS
from polymae.convert.formats import FORMATS
from polymae.convert.hashing import hash_tensors
from polymae.convert.tensors import CheckpointProblem

# The pairs of two different dialects, one to convert from and one to convert to, between which a kind of file can go.
# Whoever adds a dialect counts its pairs here.
PAIRS = {
    "official mae": 156, "official mae, not square": 6, "official mae, 2 channels": 30,
    "official encoder": 132, "official encoder, not square": 20, "official classifier, gap": 90,
    "official classifier, cls": 132, "official headless, gap": 72, "official linear probe, gap": 12,
    "official linear probe, cls": 12, "libai mae": 156, "libai encoder": 132, "libai classifier, gap": 90,
    "libai classifier, cls": 132, "flyegle mae": 12, "flyegle encoder": 156, "flyegle classifier, cls": 156,
    "flyegle classifier, mean": 12,
}  # fmt: skip
_turn = count()


def test_how_many_pairs_there_are():
    assert {case: len(pairs(case)) for case in CASES} == PAIRS
    assert sum(PAIRS.values()) == 1508
    every = {pair for case in CASES for pair in pairs(case)}
    assert len(every) == 226
    assert {pair for case in CASES for pair in pairs_to_run(case)} == every
    assert {dialect for pair in every for dialect in pair} == set(DIALECTS)


def _forms():
    """Two formats in turn, so that all are used with all dialects; the one of many small files more seldom."""
    names = [name for name in WRITTEN if name != "oneflow"]
    turn = next(_turn)
    second = "oneflow" if turn % 20 == 0 else names[(turn // len(names) + turn + 1) % len(names)]
    return names[turn % len(names)], second


@pytest.mark.parametrize("case", CASES)
def test_there_and_back(case, tmp_path):
    weights = probe(case)
    digest, model = hash_tensors(weights.tensors).content, as_model(weights.config)
    for a in expressible(case):
        form, other = _forms()
        first = written(tmp_path / a, weights, a, form)
        in_place(stored(first, form), a, weights)
        for b in (b for start, b in pairs_to_run(case) if start == a):
            there, said = converted(
                first, tmp_path / a / b / "there", b, other, model, a, weights.contents == "encoder"
            )
            assert said == digest
            in_place(stored(there, other), b, weights)
            back, said = converted(there, tmp_path / a / b / "back", a, form)
            assert said == digest
            if FORMATS[form].HAS_ROOM:  # the provenance is in it
                in_place(stored(back, form), a, weights)
            else:
                assert back.read_bytes() == first.read_bytes()


# What the refusal must say, and in how many dialects.
REFUSED = {
    "official mae": ("timm: no file of the kind autoencoder", "flyegle: it cannot express head=linear, only conv"),
    "official mae, not square": ("huggingface: images that are not square", "official: images that are not square"),
    "official mae, 2 channels": ("official: it cannot express in_chans=2, only 3", "libai: in_chans=2, only 3"),
    "official encoder, not square": ("mindformers-0.8: images that are not square", "mindcv: in_chans=2, only 3"),
    "official encoder": (
        "libai-cls: no file of the kind encoder alone",
        "flyegle: FlyEgle computes its position tables itself",
    ),
    "official classifier, gap": (
        "huggingface-v5: it cannot express pooling=gap (timm and the official dialect can), only cls",
        "libai-cls: can), only cls",
    ),
    "official classifier, cls": (
        "libai: it cannot express pooling=cls, only gap",
        "mindformers-0.3-trained: no file of the kind",
    ),
    "official headless, gap": ("libai: no file of the kind", "huggingface: no file of the kind"),
    "official linear probe, cls": ("timm: no file of the kind", "mindcv: no file of the kind"),
    "flyegle mae": ("official: it cannot express head=conv, only linear", "libai: decoder_norm=False, only True"),
    "flyegle classifier, mean": ("official: it cannot express pooling=mean, only gap or cls", "timm: pooling=mean"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_dialect_cannot_express_is_refused_with_the_reason(case, tmp_path):
    weights = probe(case)
    source = written(tmp_path / "in", weights, "polymae", "npz")
    prepared = prepare(source, Wish(as_model(weights.config), "polymae", weights.contents == "encoder"))
    said = {}
    for dialect in set(DIALECTS) - set(expressible(case)):
        with pytest.raises(CheckpointProblem) as caught:
            convert(prepared, dialect, "npz", tmp_path / "out.npz")
        said[dialect] = str(caught.value)
        assert "dialect (" in said[dialect] or said[dialect].startswith("FlyEgle")
    for words in REFUSED.get(case, ()):
        dialect, _, reason = words.partition(": ")
        assert reason in said[dialect]
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
