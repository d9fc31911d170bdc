"""The `polymae` command: one small file per subcommand, argument parsing only, no framework imported."""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import NoReturn

from ..backends.installing import in_words
from ..files.errors import Problem, command, facts
from ..files.version import __version__
from .examples import shown_in

# Subcommand, and its line in `polymae --help`. Each lives in the module of its name.
COMMANDS = {
    "inspect": "say what a checkpoint file holds",
    "dialects": "list the spellings of checkpoints that are known",
    "diff": "say whether two checkpoints hold the same weights, and which tensors differ how",
    "probe": "write a checkpoint whose elements are their own index",
    "record": "run one framework and write a trace of every tap",
    "compare": "judge every framework against the float64 oracle",
    "pretrain": "pre-train a masked autoencoder in any framework",
    "finetune": "fine-tune a classifier, on any checkpoint, in any framework",
    "linprobe": "train a linear classifier on a frozen encoder, in any framework",
    "evaluate": "top-1, top-5 and loss of a classifier on a labelled data set, in any framework",
    "predict": "classes, or features, of images by a trained model, in any framework",
    "knn": "nearest neighbours by a frozen encoder's features: how well they tell classes apart",
    "run": "do what a YAML file in mindformers' layout describes (run_mode), in any framework",
    "runs": "say whether runs of training are the same within roundoff, and from where they part",
    "preflight": "prove in minutes, before a pre-training takes days, that it will be right",
    "recipes": "list the named recipes of training, or show one",
    "profile": "measure how accurate each framework's kernels are",
    "models": "list the named models",
    "weights": "list, download and verify published weights, and what is kept of them",
    "data": "fetch small data sets, and say what a data set holds",
    "doctor": "say which frameworks work here, and how to mend those that do not",
    "env": "make environments for frameworks that have no wheels for this Python",
}


# Words after `polymae` that are no subcommand.
_OTHER_COMMANDS = dict.fromkeys(("convert", "convert_weights", "convert-weights"), "convert_weights FRAMEWORK -c FILE")


class Terminated(KeyboardInterrupt):
    """SIGTERM, or SIGHUP of a closed terminal: cleaned up after as Ctrl-C is."""


class Parser(argparse.ArgumentParser):
    """An argument parser that offers the nearest name for a mistyped one."""

    def error(self, message: str) -> NoReturn:
        """Print the problem and leave with status 2."""
        from ..files.urls import scrubbed

        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: {scrubbed(message)}\n")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            near = get_close_matches(str(value), choices, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            if action.dest == "command" and str(value) in _OTHER_COMMANDS:
                hint = f" That is a command of its own: {_OTHER_COMMANDS[str(value)]}"
            from ..files.urls import shown

            raise argparse.ArgumentError(action, f"{shown(str(value))!r} is not one of {', '.join(choices)}.{hint}")


def run_safely(prog: str, work: Callable[[], int], as_json: bool = False) -> int:
    """Run a command's work: a Problem becomes one message and status 2, Ctrl-C status 130, SIGTERM status 143.

    as_json: whether standard output is for a program, which is then given the Problem's code there (docs/conversion.md).
    """

    def terminate(signum: int, frame: object) -> NoReturn:
        raise Terminated

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name may be in no encoding, or not in the terminal's
            stream.reconfigure(errors="backslashreplace")
    try:
        with command():
            return work()
    except KeyboardInterrupt as stopped:
        print(f"{prog}: stopped; at its own place, every file is as it was before, or complete.", file=sys.stderr)
        return 143 if isinstance(stopped, Terminated) else 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141
    except SystemExit as left:
        if isinstance(left.__context__, BrokenPipeError):  # rich leaves with status 1, which would mean a fault
            return 141
        raise
    except Exception as problem:
        if os.environ.get("POLYMAE_DEBUG") and not isinstance(problem, Problem):
            raise
        message = in_words(problem)
        if as_json:
            print(json.dumps({"problem": facts(problem, message)}, indent=2))
        print(f"{prog}: {message}", file=sys.stderr)
        return 2


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `polymae`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    about = "Masked autoencoders in five frameworks, proven equal. Checkpoints are converted by the command convert_weights."
    parser = Parser(prog="polymae", description=about, **shown_in("polymae"))
    parser.add_argument(
        "--version", action="version", version=f"polymae {__version__}", help="print the version and leave"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((a for a in arguments if not a.startswith("-")), None)
    for name, summary in COMMANDS.items():
        texts = shown_in(f"polymae {name}")
        subparser = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".", **texts)
        if name == chosen:  # only the chosen subcommand's module is imported: --help stays fast
            module = importlib.import_module(f".{name}", __name__)
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run, parser=subparser)
    args, unknown = parser.parse_known_args(arguments)
    if unknown:  # the innermost parser reports it, with its usage
        from ..files.urls import shown

        args.parser.error(f"unrecognized arguments: {' '.join(map(shown, unknown))}")
    as_json = getattr(args, "json", None) is True
    args.is_program = argv is None
    return run_safely(f"polymae {args.command}", lambda: int(args.run(args)), as_json)
