"""Which weights a name means: the list of published ones, and what `pretrained` and `weights` may be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from published import CLASSIFIER, FILES, MODEL, publish

from polymae.backends.config import ConfigError
from polymae.backends.presets import model_config
from polymae.files.errors import Problem
from polymae.hub import load
from polymae.hub.registry import best_for, find, of_model, published
from polymae.hub.resolve import Source, local, source_of


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of official-layout files, which the registry knows."""
    monkeypatch.setenv("POLYMAE_REGISTRY", str(publish(tmp_path / "served")))
    return tmp_path / "served"


def test_the_best_published_weights_of_an_entry(files: Path) -> None:
    def best(model: str, **settings: object) -> str:
        return best_for(model, model_config(model, **settings)).name

    assert best("mae_vit_large_patch16") == "mae_visualize_vit_large"
    assert best("mae_vit_large_patch16", norm_pix_loss=True) == "mae_pretrain_vit_large_full"
    assert best("vit_huge_patch14") == "mae_finetuned_vit_huge"
    assert best("vit_huge_patch14", num_classes=10) == "mae_pretrain_vit_huge"
    assert best("vit_base_patch16", pooling="cls") == "mae_pretrain_vit_base"
    assert best(CLASSIFIER) == "mae_finetuned_vit_test"
    with pytest.raises(Problem, match="None are published for mae_vit_tiny_patch16"):
        best("mae_vit_tiny_patch16")


def test_what_weights_may_be(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = model_config("mae_vit_base_patch16")

    def source(weights: object) -> object:
        return source_of(weights, "mae_vit_base_patch16", config)  # type: ignore[arg-type]

    for name in ("visualize", "mae_visualize_vit_base", "mae_visualize_vit_base.pth"):
        assert source(name).row == published()["mae_visualize_vit_base"]  # type: ignore[attr-defined]
    assert source(str(files / FILES["full"])).path == files / FILES["full"]  # type: ignore[attr-defined]
    assert source("https://example.org/a.pth").url == "https://example.org/a.pth"  # type: ignore[attr-defined]
    assert source("someone/mae@main").huggingface == "someone/mae@main"  # type: ignore[attr-defined]
    assert source("facebook/vit-mae-base").row is find("vit-mae-base")  # type: ignore[attr-defined]
    for wrong, said in (
        ("weights/none.pth", "There is no file weights/none.pth"),
        ("mae_visualise_vit_base.pth", "no file mae_visualise_vit_base.pth. Nearest: mae_visualize_vit_base"),
        ("visualise", "nothing of that name is published. Did you mean 'visualize'?.* there are full, visualize, hugg"),
        ("ganloss", "No ganloss weights are published for mae_vit_base_patch16, only for mae_vit_large_patch16"),
        ("finetuned", "No finetuned weights are published for mae_vit_base_patch16, only for"),
        ("a b/c", "There is no file a b/c"),
        ("s3://me:hush@bucket/x.pth", "s3://bucket/x.pth is no address"),
        ("hf://", "hf:// is no address"),
        (" ", "give a name"),
        (False, "weights is False"),
    ):
        with pytest.raises(Problem, match=said):
            source(wrong)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    assert source("full").row == published()["mae_pretrain_vit_base_full"]  # type: ignore[attr-defined]
    assert source("./full").path == Path("full")  # type: ignore[attr-defined]
    with pytest.raises(Problem, match="both name weights"):
        load(MODEL, "numpy", True, weights="x.pth")
    with pytest.raises(Problem, match="pretrained is 1"):
        load(MODEL, "numpy", 1)  # type: ignore[arg-type]


def test_every_published_file_has_what_is_needed_to_choose_it() -> None:
    rows = published().values()
    assert len(rows) >= 19
    for row in rows:
        assert row.url.startswith("https://")
        assert row.contents == "classifier" or row.model.startswith("mae_")
        assert (row.contents == "mae") == bool(row.pixels)
        assert row.licence
        assert row.citation
        model_config(row.model)
    assert len({(row.model, row.kind) for row in rows}) == len(rows)
    assert set(of_model("vit_large_patch16")) == {
        "pretrain", "full", "visualize", "ganloss", "finetuned", "huggingface", "timm",
    }  # fmt: skip


def test_a_list_of_checkpoints_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own.json"
    monkeypatch.setenv("POLYMAE_REGISTRY", str(own))
    for text in ("", "[]", '{"sources": {}, "checkpoints": [{"name": "x", "source": "y"}]}'):
        own.write_text(text)
        with pytest.raises(Problem, match=r"own\.json \(POLYMAE_REGISTRY\)"):
            published()


def test_what_is_of_another_model_is_refused_before_it_is_downloaded(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Source, "fetch", lambda *_: pytest.fail("it was downloaded"))
    for name, weights, settings, said in (
        (MODEL, "visualize", {"num_heads": 4}, "has num_heads=3, not 4"),
        (MODEL, "visualize", {"in_chans": 1}, "has in_chans=3, not 1"),
        (MODEL, "mae_visualize_vit_base", {}, "has patch_size=16, not 8, .*Its model is mae_vit_base_patch16"),
        (CLASSIFIER, "mae_pretrain_vit_base", {}, "embed_dim=768, not 48"),
        (MODEL, "mae_finetuned_vit_test", {}, f"is a classifier of {CLASSIFIER}, and {MODEL} is an autoencoder"),
        (MODEL, True, {"image_size": 36}, "img_size=.36, 36. does not fit patch_size=8"),
        (MODEL, True, {"dtype": "float8"}, "numpy runs float32, float64 here, not 'float8'"),
        (MODEL, True, {"device": "cuda"}, "numpy sees no 'cuda'"),
    ):
        with pytest.raises((Problem, ConfigError), match=said):
            load(name, "numpy", weights, **settings)  # type: ignore[arg-type]


def test_a_command_takes_names_and_paths(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Source, "fetch", lambda self: Path(f"fetched/{self.row.name if self.row else self.huggingface or self.url}")
    )
    assert local("mae_visualize_vit_base") == Path("fetched/mae_visualize_vit_base")
    assert local("facebook/vit-mae-base") == Path("fetched/vit-mae-base")
    assert local("hf://some/one@main") == Path("fetched/some/one@main")
    assert local("https://example.org/x.pth") == Path("fetched/https:/example.org/x.pth")
    assert local(str(files / FILES["full"])) == files / FILES["full"]
    assert local("some/where/x.pth") == Path("some/where/x.pth")  # the reader says that there is none
    with pytest.raises(Problem, match="similar name is mae_visualize_vit_base"):
        local("mae_visualise_vit_base")


def test_secrets_of_an_address_are_not_said() -> None:
    assert "hush" not in str(Source(url="http://me:hush@host/x.pth?tok=hush"))


def test_a_list_that_cannot_be_read_does_not_keep_from_a_file(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYMAE_REGISTRY", str(tmp_path / "none.json"))
    assert source_of(str(files / FILES["visualize"]), MODEL, model_config(MODEL)).path == files / FILES["visualize"]
    with pytest.raises(Problem, match="POLYMAE_REGISTRY"):
        source_of("visualize", MODEL, model_config(MODEL))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"digests": {"sha1": "1234"}}, "a digest of sha1"),
        ({"contents": "classifier"}, "which is no such model"),
        ({"model": "mae_vit_bas_patch16"}, "which is no such model"),
        ({"huggingface": "a/b"}, "either a path of a file or a huggingface id"),
        ({"path": FILES["full"]}, "two checkpoints have the place"),
        ({"name": "mae_finetuned_vit_test"}, "two checkpoints have the name"),
        ({"sise": 3}, "sise"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_row_that_cannot_be_meant_is_refused(files: Path, change: dict[str, object], said: str) -> None:
    registry = files / "registry.json"
    whole = json.loads(registry.read_text())
    whole["checkpoints"][2] |= change
    registry.write_text(json.dumps(whole))
    with pytest.raises(Problem, match=said):
        published()
