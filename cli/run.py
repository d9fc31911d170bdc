"""`polymae run`: a run as a YAML file in mindformers' layout describes it, in any framework."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..backends import DEVICES, FRAMEWORKS
from ..files.arguments import whole

# The options that are keys of the file, by their dotted names.
_KEYS = {
    "run_mode": "run_mode", "train_dataset_dir": "train_dataset.data_loader.dataset_dir",
    "eval_dataset_dir": "eval_dataset.data_loader.dataset_dir", "predict_data": "predict_data",
    "load_checkpoint": "load_checkpoint", "output_dir": "output_dir",
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polymae run`, of which those that mindformers has are spelled as there."""
    parser.add_argument(
        "config", type=Path, metavar="CONFIG.yaml", help="a run's file, as run_mae_vit_base_p16_224_800ep.yaml"
    )
    parser.add_argument(
        "--framework", choices=FRAMEWORKS, default="mindspore", help="which of them (default: mindspore)"
    )
    modes = ("train", "finetune", "eval", "predict")
    parser.add_argument("--run_mode", choices=modes, help="what is done (default: as the file says)")
    parser.add_argument("--train_dataset_dir", help="images to train on (default: the file's)")
    parser.add_argument("--eval_dataset_dir", help="images to measure on (default: the file's)")
    parser.add_argument(
        "--predict_data", nargs="+", metavar="IMAGE", help="files, folders, patterns (default: the file's)"
    )
    parser.add_argument(
        "--load_checkpoint", help="checkpoint of any framework, a published one by name, or a run's folder"
    )
    parser.add_argument("--output_dir", help="the run's folder, and of pictures (default: the file's)")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="settings of our recipe: epochs=100"
    )
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="where (default: cpu)")
    parser.add_argument("--threads", type=whole(1), help="of the framework (default: its own)")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")


def run(args: argparse.Namespace) -> int:
    """Do it, print notices to stderr and the outcome; return 0, 75 where a signal ended a run, 1 where an image is broken."""
    from ..interfaces.mindformers import read_run
    from ..interfaces.trainer import Trainer
    from .training import in_fitting_process

    changes = {key: getattr(args, name) for name, key in _KEYS.items() if getattr(args, name) is not None}
    written = read_run(args.config, changes)
    if args.is_program:
        in_fitting_process(args.framework, args.threads)
    for notice in written.notices:
        print(f"notice: {notice}", file=sys.stderr)
    trainer = Trainer(
        args=written, framework=args.framework, settings=args.set, show=True, device=args.device, threads=args.threads
    )
    return _told(trainer.run(), trainer, args.json)


def _told(outcome: Any, trainer: Any, as_json: bool) -> int:
    from ..interfaces.pipelines import Reconstructions
    from ..training.request import Outcome
    from ..training.scores import Result
    from .predict import tell as tell_prediction
    from .training import tell as tell_outcome

    if isinstance(outcome, Outcome):
        return tell_outcome(outcome, trainer.recipe.task, as_json)
    if isinstance(outcome, Result):
        facts = {"top1": outcome.top1, "top5": outcome.top5, "loss": outcome.loss, "n": outcome.n}
        line = f"top-1 {outcome.top1:.3f}  top-5 {outcome.top5:.3f}  loss {outcome.loss:.4f}  ({outcome.n} images)"
        print(json.dumps(facts) if as_json else line)
        return 0
    if isinstance(outcome, Reconstructions):
        for path in outcome.save(trainer.output_dir or Path()):
            print(json.dumps({"picture": str(path)}) if as_json else path)
        for one in outcome:
            if one.problem:
                print(f"broken: {one.image}: {one.problem}", file=sys.stderr)
    else:
        for one in outcome:
            tell_prediction(one, as_json)
    return 1 if any(one.problem for one in outcome) else 0
