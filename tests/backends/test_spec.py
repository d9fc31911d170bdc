"""The spec: official counts, names, initial weights, presets and what `--model` understands."""

import json
import math

import numpy as np
import pytest
from drawn import examples
from hypothesis import given
from hypothesis import strategies as st

from polymae.backends import FRAMEWORKS
from polymae.backends.config import ConfigError, MAEConfig, ViTConfig, keep_length
from polymae.backends.initial import initial_weights, sincos_table
from polymae.backends.naming import native_params, to_native, to_spec
from polymae.backends.presets import ALIASES, FAMILY_PRESETS, NAMED, PRESETS, model_config, preset_name
from polymae.backends.spec import SpecError, encoder_params, loss_taps, params, taps, verify

# Tensors and values of the official checkpoints.
OFFICIAL = {
    "mae_vit_base_patch16": (254, 111_907_840),
    "mae_vit_large_patch16": (398, 329_541_888),
    "mae_vit_huge_patch14": (494, 657_074_508),
    "vit_base_patch16": (152, 86_567_656),
    "vit_large_patch16": (296, 304_326_632),
    "vit_huge_patch14": (392, 632_045_800),
}
ENCODERS = {
    "mae_vit_base_patch16": (150, 85_798_656),
    "mae_vit_large_patch16": (294, 303_301_632),
    "mae_vit_huge_patch14": (390, 630_764_800),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_counts_are_the_official_ones(name: str) -> None:
    listed = params(model_config(name))
    assert (len(listed), sum(p.size for p in listed)) == OFFICIAL[name]


@pytest.mark.parametrize("name", ENCODERS)
def test_encoder_counts_are_those_of_the_published_files(name: str) -> None:
    config = model_config(name)
    assert isinstance(config, MAEConfig)
    listed = encoder_params(config)
    assert (len(listed), sum(p.size for p in listed)) == ENCODERS[name]


def test_order_starts_as_the_official_state_dict() -> None:
    names = [p.name for p in params(model_config("mae_vit_base_patch16"))]
    first = ["cls_token", "pos_embed", "mask_token", "decoder_pos_embed", "patch_embed.proj.weight"]
    assert names[:5] == first
    assert names[-2:] == ["decoder_pred.weight", "decoder_pred.bias"]


def test_aliases_are_the_official_factories() -> None:
    assert model_config("mae_vit_huge_patch14_dec512d8b") == PRESETS["mae_vit_huge_patch14"]
    assert set(ALIASES.values()) <= set(PRESETS)


@pytest.mark.parametrize("name", NAMED)
def test_names_are_unique(name: str) -> None:
    config = NAMED[name]
    for listed in (params(config), (*taps(config), *loss_taps(config))):
        names = [item.name for item in listed]
        assert len(set(names)) == len(names)


def test_kept_patches_are_counted_in_binary_floating_point_as_upstream() -> None:
    official = {(100, 0.9): 9, (100, 0.8): 19, (196, 0.9): 19, (256, 0.7): 76, (196, 0.75): 49, (196, 0.0): 196}
    assert {key: keep_length(*key) for key in official} == official


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 2.0, math.nan])
def test_a_ratio_that_keeps_nothing_is_refused(ratio: float) -> None:
    with pytest.raises(ConfigError, match="keeps none"):
        keep_length(196, ratio)


def test_first_half_of_the_position_table_encodes_the_column() -> None:
    table = sincos_table(8, (2, 3))
    assert table.shape == (1, 7, 8)
    assert not table[0, 0].any()  # the class token's row
    one = np.sin(np.float64(1)).astype(np.float32)
    assert table[0, 2, 0] == one  # row 0, column 1: sin(1) in the first half
    assert table[0, 2, 4] == 0
    assert table[0, 4, 4] == one  # row 1, column 0: sin(1) in the second half
    assert table[0, 4, 0] == 0


def test_position_table_is_rounded_once_from_float64() -> None:
    # Computed in float32 throughout, a third of the values of base/16 would differ in the last bits.
    table = sincos_table(768, (14, 14))
    omega = 1.0 / 10000 ** (np.arange(192, dtype=np.float64) / 192.0)
    expected = np.sin(13.0 * omega).astype(np.float32)
    assert np.array_equal(table[0, 14, :192], expected)  # row 0, column 13


def test_initial_weights_follow_the_official_rules() -> None:
    config = model_config("mae_vit_base_patch16", depth=1, decoder_depth=1)
    weights = initial_weights(config, seed=3)
    xavier = math.sqrt(6 / (768 + 3 * 16 * 16))  # on the [768, 768] view, not on the 4-D convolution
    assert np.abs(weights["patch_embed.proj.weight"]).max() == pytest.approx(xavier, rel=1e-3)
    fused = math.sqrt(6 / (3 * 768 + 768))
    assert np.abs(weights["blocks.0.attn.qkv.weight"]).max() == pytest.approx(fused, rel=1e-3)
    assert 0.99 < np.abs(weights["patch_embed.proj.bias"]).max() * math.sqrt(768) <= 1  # Conv2d's default
    assert weights["cls_token"].std() == pytest.approx(0.02, rel=0.1)
    assert not weights["blocks.0.attn.qkv.bias"].any()
    assert (weights["norm.weight"] == 1).all()
    assert all(array.dtype == np.float32 for array in weights.values())


def test_initial_weights_are_a_function_of_the_seed() -> None:
    config = model_config("mae_vit_test_patch8")
    first, again, other = (initial_weights(config, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["decoder_pred.weight"], other["decoder_pred.weight"])


@examples(100)
@given(
    heads=st.integers(1, 4), depth=st.integers(1, 3), grid=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    patch=st.integers(1, 4), chans=st.integers(2, 5), head=st.sampled_from(["linear", "conv"]),
    framework=st.sampled_from(FRAMEWORKS),
)  # fmt: skip
def test_every_spelling_is_a_bijection(heads, depth, grid, patch, chans, head, framework) -> None:  # type: ignore[no-untyped-def]
    config = MAEConfig(
        img_size=(grid[0] * patch, grid[1] * patch), patch_size=patch, in_chans=chans, embed_dim=4 * heads, depth=depth,
        num_heads=heads, decoder_embed_dim=8, decoder_depth=1, decoder_num_heads=2, head=head,
    )  # fmt: skip
    weights = initial_weights(config)
    native = to_native(framework, config, weights)
    assert len(native) == len(weights) == len(native_params(framework, config))
    back = to_spec(framework, config, native)
    assert all(np.array_equal(back[name], weights[name]) for name in weights)


def test_verify_gathers_every_difference() -> None:
    with pytest.raises(SpecError) as caught:
        verify({"a": (1,), "b": (2,), "c": (3,)}, {"b": (4,), "c": (3,), "d": (5,)}, "This model")
    message = str(caught.value)
    assert all(part in message for part in ("3 differences", "missing: a", "unexpected: d", "b is (4,), expected (2,)"))


def test_model_from_names_and_from_json(tmp_path) -> None:  # type: ignore[no-untyped-def]
    text = "img_size=(32,48),patch_size=8,in_chans=1,embed_dim=24,depth=2,num_heads=2,norm_pix_loss=True"
    config = model_config(text)
    assert isinstance(config, MAEConfig)
    assert (config.img_size, config.in_chans, config.norm_pix_loss) == ((32, 48), 1, True)
    path = tmp_path / "model.json"
    path.write_text(json.dumps({"img_size": 32, "patch_size": 8, "num_classes": 7, "pooling": "cls"}))
    assert model_config(str(path)) == ViTConfig(img_size=(32, 32), patch_size=8, num_classes=7, pooling="cls")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("mae_vit_bse_patch16", "mae_vit_base_patch16"),
        ("depht=3", "depth"),
        ("depth=0", "at least 1"),
        ("depth=two", "must be int"),
        ("img_size=30,patch_size=8", "multiples of the patch size"),
        ("embed_dim=50,num_heads=3", "does not divide"),
        ("embed_dim=6,num_heads=3", "multiple of 4"),
        ("img_size=a", "height, width"),
        ("nowhere.json", "No model file"),
        ("pooling=max", "'gap', 'cls' or 'mean'"),
        ("positions=3d", "'2d' or '1d'"),
        ("head=deconv", "'linear' or 'conv'"),
        ("masking=blocks", "'shuffled' or 'raster'"),
        ("loss_over=kept", "'removed' or 'all'"),
        ("decoder_norm=no", "must be bool"),
        ("train_positions=1", "must be bool"),
        ("block_norm_eps=0", "finite numbers above 0"),
        ("block_norm_eps=small", "must be float"),
        ("norm_eps=None", "must be float"),
        ("embed_dim=30,num_heads=3", "multiple of 4, as the 2-D"),
        ("positions=1d,embed_dim=33,num_heads=3", "multiple of 2, as the 1-D"),
    ],
)
def test_a_wrong_model_is_refused_with_what_to_do(model: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        model_config(model)


def test_families_have_names_of_their_own() -> None:
    assert not set(PRESETS) & set(FAMILY_PRESETS)
    for name, config in FAMILY_PRESETS.items():
        assert model_config(name) == config
        assert preset_name(config) == name
    assert preset_name(model_config("libai_mae_vit_test_patch8", norm_pix_loss=True)) == "libai_mae_vit_test_patch8"
    base = model_config("libai_mae_vit_base_patch16")
    assert (base.embed_dim, base.depth, base.num_heads, base.norm_eps, base.eps_of_blocks) == (768, 12, 12, 1e-6, 1e-5)
    assert model_config("mae_vit_base_patch16").eps_of_blocks == 1e-6


def test_every_setting_can_be_given_on_the_command_line() -> None:
    text = (
        "block_norm_eps=1e-5,positions=1d,embed_dim=30,num_heads=3,decoder_norm=False,head=conv,masking=raster,"
        "loss_over=all,train_positions=True"
    )
    config = model_config(text)
    assert isinstance(config, MAEConfig)
    assert (config.eps_of_blocks, config.positions, config.decoder_norm) == (1e-5, "1d", False)
    assert (config.head, config.masking, config.loss_over, config.train_positions) == ("conv", "raster", "all", True)
    assert model_config("block_norm_eps=None,pooling=mean") == ViTConfig(pooling="mean")


@pytest.mark.parametrize("field", ["decoder_norm", "train_positions", "norm_pix_loss"])
def test_a_constructor_takes_true_or_false_alone(field: str) -> None:
    with pytest.raises(ConfigError, match="must be True or False"):
        MAEConfig(**{field: "no"})  # type: ignore[arg-type]
