"""What to use in place of arguments and methods that mindformers or transformers have and these interfaces have not."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

from ..files.errors import Problem

_ONE_PROCESS = (
    "a run is one process on one device; batch_size is that of the whole step (settings={'accumulate': 8} makes parts)"
)
_RECIPE = "settings={...}, in the recipe's names (`polymae recipes NAME` prints them)"
INSTEAD = {
    "backend": "framework='mindspore', or another of the five",
    "model_name": "model=",
    "config": "args='CONFIG.yaml', in mindformers' layout, or recipe=",
    "tokenizer": "nothing: images have none",
    "image_processor": f"nothing: size, mean and std are the model's and the run's; of a training {_RECIPE}",
    "feature_extractor": "nothing: size, mean and std are the model's and the run's",
    "processor": "nothing: size, mean and std are the model's and the run's",
    "audio_processor": "nothing: these are images",
    "data_collator": "nothing: polymae.data.batches.Batches makes whole batches",
    "optimizers": _RECIPE,
    "wrapper": f"settings={{'precision': 'float16'}}, which scales the loss by one rule for every framework; {_RECIPE}",
    "pet_method": "task='image_classification' with recipe='linprobe-base', which trains the head alone",
    "callbacks": "the run's folder: log.txt, steps.jsonl, TensorBoard, checkpoints",
    "eval_callbacks": "the result that evaluate returns",
    "compute_metrics": "the result that evaluate returns: top1, top5, loss, per_class, confusion",
    "save_config": "nothing: the recipe that ran is written to RUN/recipe.yaml",
    "train_checkpoint": "finetune(CHECKPOINT), which begins with its weights, or train(resume=RUN)",
    "resume_training": "resume=True, or resume=RUN",
    "resume_from_checkpoint": "resume=True, or resume=RUN",
    "resume_or_finetune_from_checkpoint": "train(resume=RUN) or finetune(CHECKPOINT)",
    "auto_trans_ckpt": "nothing: a checkpoint of any framework and layout is read as it is",
    "src_strategy_path_or_dir": "nothing: a checkpoint is whole",
    "do_eval": "settings={'evaluate_every_epochs': 1}",
    "eval_checkpoint": "evaluate(eval_checkpoint)",
    "checkpoint_name_or_path": "from_pretrained(NAME or PATH)",
    "remote_save_url": "output_dir=, a folder of this machine",
    "download_checkpoint": "nothing: what is published is downloaded once and verified (POLYMAE_HOME)",
    "from_tf": "nothing: a file of any framework is converted as it is read",
    "from_flax": "nothing: Flax's files are not read; save them by PyTorch",
    "torch_dtype": "dtype='bfloat16'",
    "device_map": "device='cuda'",
    "cache_dir": "the environment variable POLYMAE_HOME",
    "local_files_only": "the environment variable POLYMAE_OFFLINE=1",
    "top_k": "topk=",
    "ignore_mismatched_sizes": "num_classes=, which drops a head of other classes; image_size=, which resizes the positions",
    "num_labels": "num_classes=",
    "safe_serialization": "convert_weights safetensors -c FILE -o OUT.safetensors",
    "save_name": "name=",
    "set_parallel_config": _ONE_PROCESS,
    "set_recompute_config": "settings={'accumulate': 8}: less memory by smaller parts",
    "set_moe_config": "nothing: these models have no experts",
    "use_parallel": _ONE_PROCESS,
    "push_to_hub": "convert_weights huggingface -c FILE -o FOLDER, which the Hugging Face library uploads",
}


def require_known(function: str, given: Collection[str], known: Collection[str]) -> None:
    """Raise Problem for an argument that a function has not, with what to use instead, or the nearest name."""
    unknown = [name for name in given if name not in known]
    if unknown:
        told = "; ".join(f"{name}: {instead(name, known)}" for name in unknown)
        raise Problem(f"{function} has no argument {', '.join(unknown)}. {told}.", code="bad-argument")


def instead(name: str, known: Collection[str]) -> str:
    """What to use in place of a name that is not there."""
    if name in INSTEAD:
        return f"instead, {INSTEAD[name]}"
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
