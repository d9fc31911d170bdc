"""Models of transformers and timm in the test size: how they are made, saved, loaded, run, and spoilt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polymae.backends.config import Config, MAEConfig
from polymae.backends.initial import initial_weights
from polymae.backends.presets import model_config
from polymae.backends.runtime import load_backend
from polymae.backends.spec import encoder_params

Array = NDArray[Any]
Arrays = dict[str, Array]

MAE, CLASSIFIER = "mae_vit_test_patch8", "vit_test_patch8"
_ENCODER = {
    "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 192, "image_size": 32,
    "patch_size": 8, "layer_norm_eps": 1e-6,
}  # fmt: skip
_DECODER = {
    "decoder_hidden_size": 32, "decoder_num_hidden_layers": 2, "decoder_num_attention_heads": 4,
    "decoder_intermediate_size": 128,
}  # fmt: skip
# The arguments with which timm's own name for the model makes it this small.
_TIMM = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3}


@dataclass(frozen=True)
class Other:
    """A model of another library.

    make(): with its own initial weights. save(model, folder): by its own means, returning the file or folder. load(path):
    from a file of ours, by its own means, raising AssertionError for any key that is missing, unexpected or mismatched.
    run(model, inputs): its outputs by the names of our taps.
    """

    library: str
    model: str  # what --model calls it
    config: Config
    encoder_only: bool
    make: Callable[[], Any]
    save: Callable[[Any, Path], Path]
    load: Callable[[Path], Any]
    run: Callable[[Any, Arrays], Arrays]
    mask_ratio: float = 0.75

    def inputs(self) -> Arrays:
        """Two images, with noise or labels. Where nothing is masked, the noise leaves the patches in their order."""
        rng = np.random.default_rng(8)
        imgs = rng.standard_normal((2, 3, 32, 32), np.float32)
        if not isinstance(self.config, MAEConfig):
            return {"imgs": imgs, "labels": np.array([3, 1])}
        noise = rng.random((2, self.config.num_patches), np.float32)
        return {"imgs": imgs, "noise": noise if self.mask_ratio else np.sort(noise, axis=1)}

    def our_weights(self) -> Arrays:
        """Initial weights with noise on all of them: zero biases and unit scales would hide a missing term."""
        rng = np.random.default_rng(6)
        weights = initial_weights(self.config, 1)
        kept = {p.name for p in encoder_params(self.config)} if self.encoder_only else set(weights)
        return {
            name: (array + 0.05 * rng.standard_normal(array.shape)).astype(np.float32)
            for name, array in weights.items()
            if name in kept
        }

    def made(self) -> Any:
        """A model with noise on all its weights."""
        import torch

        torch.manual_seed(4)
        model = self.make()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        return model.eval()

    def ours(self, framework: str, weights: Arrays, dtype: str = "float32", path: Path | None = None) -> Arrays:
        """What a backend makes of the inputs. path: its own loader then fills the model from this file."""
        runtime = load_backend(framework)
        runtime.setup(threads=1)
        whole = weights if not self.encoder_only else initial_weights(self.config, 0) | weights
        if path is None:
            model = runtime.build(self.config, whole, dtype=dtype)
        else:
            nothing = {name: np.full_like(array, np.nan) for name, array in whole.items()}
            model = runtime.build(self.config, nothing, dtype=dtype)
            runtime.load_file(model, path)
        with np.errstate(invalid="ignore"):  # where nothing is masked there is no loss
            return runtime.run(model, self.inputs(), self.mask_ratio)[0]


def _save_pretrained(model: Any, folder: Path, **how: Any) -> Path:
    model.save_pretrained(folder, **how)
    return folder if how else folder / "model.safetensors"


def _from_pretrained(name: str, path: Path) -> Any:
    import transformers

    model, info = getattr(transformers, name).from_pretrained(path, output_loading_info=True, local_files_only=True)
    assert not any(info.values()), info
    return model.eval()


def _huggingface(name: str) -> Any:
    import transformers

    if name == "ViTForImageClassification":
        return transformers.ViTForImageClassification(transformers.ViTConfig(**_ENCODER, num_labels=10))
    return getattr(transformers, name)(transformers.ViTMAEConfig(**_ENCODER, **_DECODER))


def _run_huggingface(model: Any, inputs: Arrays) -> Arrays:
    import torch

    imgs = torch.from_numpy(inputs["imgs"])
    with torch.no_grad():
        if "noise" not in inputs:
            return {"logits": model(imgs).logits.numpy()}
        out = model(imgs, noise=torch.from_numpy(inputs["noise"]))
        found = {"mask": out.mask.numpy(), "ids_restore": out.ids_restore.numpy()}
        if "logits" not in out:
            return found | {"latent": out.last_hidden_state.numpy()}
        found |= {"pred": out.logits.numpy()}
        for loss, model.config.norm_pix_loss in (("pixel.loss", False), ("norm_pix.loss", True)):
            found[loss] = model(imgs, noise=torch.from_numpy(inputs["noise"])).loss.numpy()
        return found


def _timm(**head: Any) -> Any:
    import timm

    return timm.create_model("vit_base_patch16_224.mae", **_TIMM, **head)


def _save_timm(model: Any, folder: Path) -> Path:
    from safetensors.torch import save_file

    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    return folder / "model.safetensors"


def _load_timm(path: Path, **head: Any) -> Any:
    from safetensors.torch import load_file

    state = load_file(path)
    _timm(**head).load_state_dict(state, strict=True)
    return _timm(**head, checkpoint_path=str(path)).eval()


def _run_timm(model: Any, inputs: Arrays) -> Arrays:
    import torch

    imgs = torch.from_numpy(inputs["imgs"])
    with torch.no_grad():
        if model.num_classes:
            return {"logits": model(imgs).numpy()}
        return {"latent": model.forward_features(imgs).numpy()}


def _hf(name: str, model: str, config: Config, encoder_only: bool = False) -> Other:
    load, make = partial(_from_pretrained, name), partial(_huggingface, name)
    return Other("huggingface", model, config, encoder_only, make, _save_pretrained, load, _run_huggingface)


def _tm(model: str, config: Config, mask_ratio: float = 0.75, **head: Any) -> Other:
    load, make, encoder_only = partial(_load_timm, **head), partial(_timm, **head), isinstance(config, MAEConfig)
    return Other("timm", model, config, encoder_only, make, _save_timm, load, _run_timm, mask_ratio)


_MAE, _GAP, _CLS = model_config(MAE), model_config(CLASSIFIER), model_config(CLASSIFIER, pooling="cls")
OTHERS = {
    "ViTMAEForPreTraining": _hf("ViTMAEForPreTraining", MAE, _MAE),
    "ViTMAEModel": _hf("ViTMAEModel", MAE, _MAE, encoder_only=True),
    "ViTForImageClassification": _hf("ViTForImageClassification", CLASSIFIER, _CLS),
    "timm-encoder": _tm(MAE, _MAE, mask_ratio=0, num_classes=0),
    "timm-avg": _tm(CLASSIFIER, _GAP, num_classes=10, global_pool="avg"),
    "timm-token": _tm(CLASSIFIER, _CLS, num_classes=10, global_pool="token"),
}
