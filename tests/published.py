"""A folder as the official server has it, for the small test model, and the list of it that $POLYMAE_REGISTRY names."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from polymae.backends.config import MAEConfig
from polymae.backends.initial import initial_weights
from polymae.backends.presets import model_config
from polymae.backends.spec import encoder_params
from polymae.convert.writing import official_checkpoint

MODEL, CLASSIFIER = "mae_vit_test_patch8", "vit_test_patch8"
AUTOENCODER = model_config(MODEL)
WEIGHTS = {
    "pretrain": initial_weights(AUTOENCODER, seed=21),
    "full": initial_weights(AUTOENCODER, seed=22),
    "visualize": initial_weights(AUTOENCODER, seed=23),
    "finetuned": initial_weights(model_config(CLASSIFIER), seed=24),
}
# Official folder and file name of each kind.
FILES = {
    "pretrain": "pretrain/mae_pretrain_vit_test.pth",
    "full": "pretrain/mae_pretrain_vit_test_full.pth",
    "visualize": "visualize/mae_visualize_vit_test.pth",
    "finetuned": "finetune/mae_finetuned_vit_test.pth",
}


def publish(folder: Path, address: str = "http://127.0.0.1:9/") -> Path:
    """Write the files and, beside them, registry.json with their digests, as found at `address`; return its path."""
    rows = []
    for kind, path in FILES.items():
        weights, config = WEIGHTS[kind], model_config(CLASSIFIER if kind == "finetuned" else MODEL)
        if kind == "pretrain" and isinstance(config, MAEConfig):
            weights = {param.name: weights[param.name] for param in encoder_params(config)}
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        official_checkpoint(folder / path, config, weights)
        contents = {"pretrain": "encoder", "finetuned": "classifier"}.get(kind, "mae")
        pixels = {"full": "normalised", "visualize": "raw"}.get(kind, "")
        rows.append(
            {
                "name": Path(path).stem,
                "source": "here",
                "path": path,
                "model": CLASSIFIER if kind == "finetuned" else MODEL,
                "kind": kind,
                "contents": contents,
                "pixels": pixels,
                "digests": {"md5": hashlib.md5((folder / path).read_bytes()).hexdigest()[:6]},
            }
        )
    source = {"title": "a test", "url": address, "licence": "CC-BY-NC 4.0", "citation": "none"}
    registry = folder / "registry.json"
    registry.write_text(json.dumps({"sources": {"here": source}, "checkpoints": rows}))
    return registry
