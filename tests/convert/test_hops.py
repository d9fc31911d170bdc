"""Over several conversions nothing is forgotten: what the weights are for, and what a file says of itself."""

import json
import shutil

import pytest
from checkpoints import CONFIG, MODEL, WEIGHTS, raw_pth, refused

from polymae.backends.initial import initial_weights
from polymae.backends.presets import model_config
from polymae.cli.convert_weights import main as convert
from polymae.convert import writing
from polymae.convert.checkpoint import content_hash, open_checkpoint
from polymae.convert.probe import write_probe
from polymae.convert.provenance import beside
from polymae.convert.writing import official_checkpoint, write_checkpoint
from polymae.files.errors import Problem

SIZES = (
    "img_size=32,patch_size=8,embed_dim=48,depth=3,num_heads=3,decoder_embed_dim=32,decoder_depth=2,decoder_num_heads=4"
)


def go(*arguments):
    assert convert([str(argument) for argument in arguments]) == 0


def test_gelu_and_eps_survive_several_hops(tmp_path, capsys):
    write_probe("mindformers-0.8", "npz", tmp_path / "mf.npz")
    go("torch", "-c", tmp_path / "mf.npz", "-o", tmp_path / "a.pth")
    go("huggingface", "-c", tmp_path / "a.pth", "-o", tmp_path / "hf")
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["hidden_act"] == "gelu_new"
    go("megengine", "-c", tmp_path / "hf", "-o", tmp_path / "b.pkl")
    capsys.readouterr()
    go("torch", "-c", tmp_path / "b.pkl", "-o", tmp_path / "c.pth", "--to", "official")
    assert "GELU: these weights are for its tanh approximation" in capsys.readouterr().out
    write_probe("libai", "npz", tmp_path / "l.npz")
    go("mindspore", "-c", tmp_path / "l.npz", "-o", tmp_path / "l.ckpt")
    go("oneflow", "-c", tmp_path / "l.ckpt", "-o", tmp_path / "l_of")
    assert open_checkpoint(tmp_path / "l_of").config.block_norm_eps == 1e-5


def test_a_provenance_is_found_through_a_link(tmp_path):
    write_probe("libai", "npz", tmp_path / "l.npz")
    (tmp_path / "real").mkdir()
    (tmp_path / "link.pkl").symlink_to(tmp_path / "real" / "w.pkl")
    go("megengine", "-c", tmp_path / "l.npz", "-o", tmp_path / "link.pkl")
    assert open_checkpoint(tmp_path / "link.pkl").config.block_norm_eps == 1e-5


def test_a_write_that_fails_last_leaves_the_old_provenance(tmp_path, monkeypatch):
    write_probe("libai", "npz", tmp_path / "l.npz")
    go("megengine", "-c", tmp_path / "l.npz", "-o", tmp_path / "w.pkl")
    before = beside(tmp_path / "w.pkl").read_bytes()
    official_checkpoint(tmp_path / "o.pth", CONFIG, WEIGHTS)
    flush, calls = writing.flush, []

    def fail(path):
        calls.append(path)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(writing, "flush", fail)
    assert "untouched" in _refuse("megengine", "-c", tmp_path / "o.pth", "-o", tmp_path / "w.pkl")
    assert calls
    assert beside(tmp_path / "w.pkl").read_bytes() == before
    monkeypatch.setattr(writing, "flush", flush)
    monkeypatch.setattr(
        "polymae.files.atomic._put_in_place",
        lambda new, target, old: fail(target) if target.suffix == ".pkl" else new.replace(target),
    )
    assert "untouched" in _refuse("megengine", "-c", tmp_path / "o.pth", "-o", tmp_path / "w.pkl")
    assert beside(tmp_path / "w.pkl").read_bytes() == before
    assert open_checkpoint(tmp_path / "w.pkl").config.block_norm_eps == 1e-5


def _refuse(*arguments):
    from polymae.convert.conversion import Wish, prepare
    from polymae.convert.conversion import convert as write

    with pytest.raises(Problem) as caught:
        write(prepare(arguments[2], Wish()), "megengine", "megengine", arguments[4])
    return str(caught.value)


def test_what_a_file_says_is_not_overruled_in_silence(tmp_path, capsys):
    official_checkpoint(tmp_path / "o.pth", CONFIG, WEIGHTS)
    go("huggingface", "-c", tmp_path / "o.pth", "-o", tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config | {"num_attention_heads": 4}))
    message = refused(capsys, "torch", "-c", tmp_path / "hf", "-o", tmp_path / "x.pth")
    assert "config.json says otherwise than the provenance" in message and "num_heads 4, not 3" in message  # noqa: PT018
    write_probe("huggingface", "shards", tmp_path / "plain")
    path = tmp_path / "plain" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_attention_heads": 4, "norm_pix_loss": True}))
    assert "num_heads=4, not 3" in refused(
        capsys, "torch", "-m", MODEL, "-c", tmp_path / "plain", "-o", tmp_path / "x.pth"
    )
    go("torch", "-c", tmp_path / "plain", "-o", tmp_path / "x.pth")
    assert (
        open_checkpoint(tmp_path / "x.pth").config.num_heads,
        open_checkpoint(tmp_path / "x.pth").config.norm_pix_loss,
    ) == (4, True)
    message = refused(
        capsys, "torch", "-m", "flyegle_mae_vit_test_patch8", "-c", tmp_path / "o.pth", "-o", tmp_path / "y.pth"
    )
    assert "is not of flyegle_mae_vit_test_patch8's family" in message
    write_probe("libai", "npz", tmp_path / "l.npz")
    go("torch", "-c", tmp_path / "l.npz", "-m", f"{SIZES},block_norm_eps=3e-6", "-o", tmp_path / "z.pth")
    assert open_checkpoint(tmp_path / "z.pth").config.block_norm_eps == 3e-6


def test_our_own_flyegle_state_is_known_by_its_head(tmp_path):
    config = model_config("flyegle_mae_vit_test_patch8")
    write_checkpoint("torch", tmp_path / "f.pth", config, initial_weights(config))
    assert open_checkpoint(tmp_path / "f.pth").model == "flyegle_mae_vit_test_patch8"
    assert open_checkpoint(tmp_path / "f.pth").config == config


def test_other_peoples_folders_and_the_source_itself_are_safe(tmp_path, capsys):
    official_checkpoint(tmp_path / "o.pth", CONFIG, WEIGHTS)
    mine = tmp_path / "mine"
    mine.mkdir()
    shutil.copy(tmp_path / "o.pth", mine / "keep.safetensors")
    (mine / "config.json").write_text("{}")
    assert "would be lost" in refused(capsys, "huggingface", "-c", tmp_path / "o.pth", "-o", mine)
    go("huggingface", "-c", tmp_path / "o.pth", "-o", tmp_path / "hf")
    go("huggingface", "-c", tmp_path / "o.pth", "-o", tmp_path / "hf")  # an earlier save of ours is replaced
    inside = tmp_path / "hf" / "model.safetensors"
    assert "in the same place" in refused(capsys, "safetensors", "-c", tmp_path / "hf", "-o", inside)
    assert "in the same place" in refused(capsys, "huggingface", "-c", inside, "-o", tmp_path / "hf")
    for lossy in (["--encoder-only"], ["--dtype", "float16"], ["--image-size", "64"]):
        assert "would lose something" in refused(
            capsys, "torch", "-c", tmp_path / "o.pth", "-o", tmp_path / "o.pth", *lossy
        )
    assert open_checkpoint(tmp_path / "o.pth").hash == content_hash(WEIGHTS)


def test_the_nearest_model_is_named_with_what_differs(tmp_path, capsys):
    raw_pth(tmp_path / "m.pth", {name: array for name, array in WEIGHTS.items() if name != "norm.bias"})
    message = refused(capsys, "torch", "-c", tmp_path / "m.pth", "-o", tmp_path / "x.pth")
    assert f"nearest to {MODEL}, but for:\n  missing: norm.bias (48,)" in message


@pytest.mark.parametrize("prefix", ["model.", "backbone.", "module.net.", "_orig_mod.encoder."])
def test_a_model_in_a_larger_one(prefix, tmp_path):
    checkpoint = open_checkpoint(raw_pth(tmp_path / "l.pth", {prefix + name: array for name, array in WEIGHTS.items()}))
    assert (checkpoint.dialect, checkpoint.model, checkpoint.identified.prefix) == ("official", MODEL, prefix)
    assert checkpoint.hash == content_hash(WEIGHTS)


def changed(folder, **settings):
    """A Hugging Face folder, with other values in its config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def test_of_an_encoder_only_what_an_encoder_has_can_contradict(tmp_path, capsys):
    """A decoder that neither has is no contradiction, between config.json and provenance or a file and -m."""
    official_checkpoint(tmp_path / "o.pth", CONFIG, WEIGHTS)
    go("huggingface", "-c", tmp_path / "o.pth", "-o", tmp_path / "hf", "--encoder-only")
    changed(tmp_path / "hf", decoder_num_hidden_layers=5, decoder_hidden_size=64, norm_pix_loss=True)
    go("torch", "-c", tmp_path / "hf", "-o", tmp_path / "a.pth")
    assert open_checkpoint(tmp_path / "a.pth").config == CONFIG  # as the provenance says
    go("torch", "-c", tmp_path / "hf", "-o", tmp_path / "b.pth", "--encoder-only", "-m", f"{SIZES},head=conv")
    found = open_checkpoint(tmp_path / "b.pth")
    assert (found.config.head, found.model) == ("conv", MODEL)  # the encoder is that of the named model
    changed(tmp_path / "hf", num_attention_heads=4)
    message = refused(capsys, "torch", "-c", tmp_path / "hf", "-o", tmp_path / "c.pth")
    assert "config.json says otherwise than the provenance" in message
    assert "num_heads 4, not 3" in message
    assert "decoder" not in message


def test_of_a_headless_classifier_no_head_can_contradict(tmp_path, capsys):
    sizes = "img_size=32,patch_size=8,embed_dim=48,depth=3,num_heads=3,num_classes=7"
    vit = model_config(sizes)
    weights = {name: array for name, array in initial_weights(vit).items() if not name.startswith("head.")}
    write_checkpoint("numpy", tmp_path / "v.npz", vit, weights)
    go("torch", "-c", tmp_path / "v.npz", "-m", sizes, "-o", tmp_path / "v.pth")
    other = sizes.replace("classes=7", "classes=9,head_norm=True")
    go("torch", "-c", tmp_path / "v.pth", "-m", other, "-o", tmp_path / "w.pth")
    refusal = refused(capsys, "torch", "-c", tmp_path / "v.pth", "-m", f"{sizes},pooling=cls", "-o", tmp_path / "x.pth")
    assert "pooling=gap, not cls" in refusal


def test_two_ratios_of_one_hidden_width_are_the_same(tmp_path, capsys):
    """A config.json has the width that comes of a ratio: 1.3 times 12, and 15 of 12, are both 15."""
    sizes = "img_size=4,patch_size=2,embed_dim=12,depth=1,num_heads=3,decoder_embed_dim=24,decoder_depth=1,decoder_num_heads=2"
    write_probe("huggingface", "shards", tmp_path / "hf", model=f"{sizes},mlp_ratio=1.3")
    assert open_checkpoint(tmp_path / "hf").config.mlp_dim(24) == 31
    go("torch", "-c", tmp_path / "hf", "-m", f"{sizes},mlp_ratio=1.3", "-o", tmp_path / "a.pth")
    said = refused(capsys, "torch", "-c", tmp_path / "hf", "-m", f"{sizes},mlp_ratio=1.25", "-o", tmp_path / "b.pth")
    assert "not 1.25" in said  # 30 in the decoder
