"""Reports that no run is behind: every tensor of a model, with errors from a seed, and pictures to match."""

from __future__ import annotations

from typing import Any

import numpy as np

from polymae.backends import FRAMEWORKS
from polymae.backends.presets import model_config
from polymae.backends.spec import Tap, params
from polymae.compare import LEVELS
from polymae.compare.levels import expected
from polymae.compare.limits.findings import Finding, Judgement
from polymae.compare.report.plot_data import BINS, TWINS, Pictures
from polymae.compare.report.report import About, Report

ENVIRONMENT = {"version": "1.2.3", "device": "cpu", "threads": 1, "tf32": False, "denormals": "kept"}


def made_report(model: str = "mae_vit_test_patch8", wrong: str = "", seed: int = 0) -> Report:
    """A report on a model in every framework; in torch the tensor of this name, and all after it, are wrong."""
    rng = np.random.default_rng(seed)
    config = model_config(model)
    judgements = []
    for label in FRAMEWORKS:
        weights = (("weights", Tap(f"weights/{param.name}", "load", exact=True)) for param in params(config))
        findings = [_finding(level, tap, rng) for level, tap in (*weights, *expected(config))]
        judgements.append(Judgement(label, findings, environment={"framework": label, **ENVIRONMENT}))
    if wrong:
        found = judgements[1].findings
        for finding in found[[finding.name for finding in found].index(wrong) :]:
            finding.verdict, finding.error, finding.introduced = "fault", 1234.5, 321.0
    about = About(model, "seeded", "0" * 64, "2 random images, seed 0", 0.75)
    planted = {"level": "forward", "margin": 12.5, "located_at": "blocks.0.norm1", "expected": "blocks.0.norm1"}
    power = [{"name": f"fault {i}", "framework": label} | planted for i in range(30) for label in FRAMEWORKS]
    power[1]["margin"] = 1.5
    return Report(
        about, LEVELS, judgements, twins=3, config={"patch_size": config.patch_size}, digests={"imgs": "a" * 64},
        not_compared=["devices other than cpu (cuda, ascend)"], pictures=_pictures(config, rng), power=power,
    )  # fmt: skip


def _finding(level: str, tap: Any, rng: np.random.Generator) -> Finding:
    if tap.exact:
        return Finding(tap.name, level, tap.operation, "exact", reason="0 of 8 elements differ", size=8)
    floor = float(rng.uniform(1, 9))
    error = float(floor * rng.uniform(0.3, 1.8))
    local = (
        {"introduced": float(rng.uniform(0.3, 2)), "introduced_limit": 2.5} if level in ("forward", "gradients") else {}
    )
    reason = f"kappa 2.00 (n=99999) x floor {floor:.2f} (worst of 3 twins)"
    return Finding(tap.name, level, tap.operation, "roundoff", error, 2 * floor, floor, reason, (1, 7), 12.5, 0.01, 99999,
                   amplification=1.1, **local)  # fmt: skip


def _pictures(config: Any, rng: np.random.Generator) -> Pictures:
    height, width = (side // config.patch_size for side in config.img_size)
    shape = np.exp(-((np.array(BINS) - 2.0) ** 2) / 4)
    shape /= shape.sum()
    curve = np.linspace(1.2, 0.4, 100)
    return Pictures(
        histogram={label: (shape * rng.uniform(0.8, 1.2, len(BINS))).tolist() for label in (*FRAMEWORKS, TWINS)},
        grid=[height, width],
        masks=[(rng.random(height * width) < 0.75).astype(int).tolist() for _ in range(2)],
        patch_errors={label: rng.uniform(1, 9, (2, height * width)).tolist() for label in FRAMEWORKS},
        oracle_curve=curve.tolist(),
        curves={label: curve.tolist() for label in FRAMEWORKS},
        distances={label: (1e-7 * rng.random(100)).tolist() for label in FRAMEWORKS},
        curve_limit=(1e-7 * np.linspace(2, 5, 100)).tolist(),
        thumbnails=[rng.integers(0, 256, (112, 112, 3)).astype(np.uint8) for _ in range(2)],
    )
