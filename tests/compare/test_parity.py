"""The main job on small models: every framework gets the same weights and is judged against the float64 oracle."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from frameworks import frameworks_under_test
from repository import ROOT

from polymae.backends.config import MAEConfig
from polymae.backends.presets import model_config
from polymae.cli import main
from polymae.compare import LEVELS
from polymae.compare.options import Comparison
from polymae.compare.run import compare

TEST = "mae_vit_test_patch8"
SIZES = "patch_size=8,embed_dim=24,depth=2,num_heads=2"
MODELS = {
    "not square, one channel, normalised patches": (
        f"img_size=(16,32),in_chans=1,{SIZES},decoder_embed_dim=16,decoder_depth=1,decoder_num_heads=2,norm_pix_loss=True"
    ),
    "patch 14": "img_size=56,patch_size=14,embed_dim=80,depth=1,num_heads=1,decoder_depth=1,decoder_embed_dim=32",
    "classifier, gap": "vit_test_patch8",
    "classifier, cls": f"img_size=(16,32),{SIZES},num_classes=7,pooling=cls",
    "linear probe": f"img_size=16,{SIZES},num_classes=7,pooling=cls,head_norm=True",
}


@pytest.mark.parametrize("kind", MODELS)
def test_every_framework_is_within_roundoff(kind: str, tmp_path: Path, warm: None) -> None:
    # The last two levels train a small model of the family, whatever the size of this one: once for each family.
    # The autoencoders' are run on photographs, below; the curve of classifiers is test_training.py's.
    levels = LEVELS[:-1] if kind == "classifier, gap" else LEVELS[:-2]
    comparison = Comparison(frameworks=frameworks_under_test(), model=MODELS[kind], levels=levels, keep=tmp_path)
    report = compare(replace(comparison, mask_ratio=0.5) if kind == "patch 14" else comparison)
    assert {j.label for j in report.judgements} == set(frameworks_under_test())
    for judgement in report.judgements:
        assert report.verdict(judgement) in ("roundoff", "explained"), report.reason(judgement)
        assert {finding.level for finding in judgement.findings} == set(levels)
        orders = {found.name: found.verdict for found in judgement.findings if found.name in ("mask", "ids_restore")}
        masked = isinstance(model_config(MODELS[kind]), MAEConfig)
        assert orders == ({"mask": "exact", "ids_restore": "exact"} if masked else {})
        if judgement.label != "mindspore":  # only its softmax is known to be inaccurate
            assert report.verdict(judgement) == "roundoff", report.reason(judgement)
    assert report.exit_status == 0


def test_photographs_and_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = sorted((ROOT / "demo" / "photos").glob("*.jpg"))
    assert len(photos) == 2
    names = ",".join(frameworks_under_test())
    arguments = ["compare", "-m", TEST, "--frameworks", names, "--out", str(tmp_path / "reports"), "--images"]
    assert main([*arguments, *map(str, photos)]) == 0
    report = json.loads((tmp_path / "reports" / "report.json").read_text())
    assert {row["framework"] for row in report["frameworks"]} == set(frameworks_under_test())
    for row in report["frameworks"]:
        assert row["verdict"] in ("roundoff", "explained" if row["framework"] == "mindspore" else "roundoff"), row
        assert {finding["level"] for finding in row["tensors"]} == set(LEVELS)
        verdicts = {finding["name"]: finding["verdict"] for finding in row["tensors"]}
        assert verdicts["mask"] == verdicts["ids_restore"] == "exact"
    assert (tmp_path / "reports" / "report.html").stat().st_size < 1_000_000
    assert "first wrong" not in capsys.readouterr().out
