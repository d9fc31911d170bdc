"""The names that README and docs promise: commands, options, Python, variables. None may go or change by accident."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from typing import get_args

import numpy as np
import pytest
from pages import PAGES, commands
from repository import ROOT, repository_files

from polymae.backends import FRAMEWORKS
from polymae.cli import COMMANDS, convert_weights, main
from polymae.compare import parity
from polymae.files.errors import Code
from polymae.hub import list_models
from polymae.hub.entries import entries

OF_A_MODEL = (
    "--framework --weights -m --image-size --mean --std --crop-ratio --batch-size --workers --device --threads --dtype "
    "--json"
)
OF_A_TRAINING = (
    "--framework --data --out --recipe --set --weights --resume --accept-changes --data-format --device --threads "
    "--json"
)
PROMISED = {
    "convert_weights": "-c --torch_path -o --mindspore_path -m --from --to --format --prefix --encoder-only --num-classes "
    "--image-size --dtype --dry-run",
    "polymae": "--version --help",
    "polymae inspect": "-m --prefix --tensors --json",
    "polymae dialects": "--json",
    "polymae diff": "--json",
    "polymae probe": "--dialect --format -m -o --check",
    "polymae record": "--framework -m --weights --inputs --level --taps --dtype --twin --out --device",
    "polymae compare": "-m --weights --frameworks --images --inputs --level --traces --out --junit --markdown --json --against "
    "--atol --rtol --keep --python --device --norm-pix-loss --time-limit --drop-path --soft-targets",
    "polymae pretrain": OF_A_TRAINING,
    "polymae finetune": f"{OF_A_TRAINING} --eval-data",
    "polymae linprobe": f"{OF_A_TRAINING} --eval-data",
    "polymae evaluate": f"{OF_A_MODEL} --data --data-format --split --class-map --names --official-loss --out --confusion --part "
    "--processes --scores --merge",
    "polymae predict": f"{OF_A_MODEL} --topk --names --features --pooling --out",
    "polymae knn": f"{OF_A_MODEL} --data --data-format -k --temperature --images --seed --pooling --out",
    "polymae recipes": "--set",
    "polymae run": "--framework --run_mode --train_dataset_dir --eval_dataset_dir --predict_data --load_checkpoint --output_dir "
    "--set --device --threads --json",
    "polymae runs compare": "--reference --out --json",
    "polymae preflight": "--framework --data --recipe --set --only --device --seconds --out --json",
    "polymae profile": "--frameworks --operations --settings",
    "polymae models": "--json",
    "polymae doctor": "--framework --json",
    "polymae weights list": "--json",
    "polymae weights path": "--framework",
    "polymae weights download": "--framework",
    "polymae weights verify": "--json",
    "polymae weights clear": "--all --converted",
    "polymae data list": "--json",
    "polymae data get": "--out --from",
    "polymae data show": "--data-format --split --check --json",
    "polymae env add": "",
    "polymae env use": "",
    "polymae env list": "--json",
    "polymae env path": "",
    "polymae env remove": "",
}
# Of other programs, on the same pages: pip, pytest, coverage, the fuzzer, compilers.
OF_OTHERS = {
    "-e",
    "-W",
    "-n2",
    "-k",
    "--dist",
    "--source",
    "--skip-covered",
    "--count",
    "--seed",
    "-ffast-math",
    "--remember",
    "--dist_eval",  # of the official evaluation
    "--config",  # of run_mindformer.py
}
PYTHON = {
    "polymae": "Problem Trainer ViTForImageClassification ViTMAEForPreTraining __version__ compare convert hub load pipeline",
    "polymae.interfaces": "Trainer ViTForImageClassification ViTMAEForPreTraining pipeline",
    "polymae.hub": "list_models load",
    "polymae.compare": "Comparison Finding Judgement LEVELS OF_ONE_RUN Parity Problem Run Tap assert_parity chained displaced "
    "parity parity_of_traces rounded save_trace tapped widened",
    "polymae.convert": "Checkpoint CheckpointProblem Loaded Prepared Wish content_hash convert open_checkpoint prepare "
    "write_checkpoint",
    "polymae.backends.denormals": "keep_denormals",
    "polymae.data.augment": "Augmentation",
    "polymae.data.batches": "Batches",
    "polymae.data.datasets": "open_dataset",
    "polymae.data.mixing": "Mixing",
    "polymae.training.evaluate": "evaluate evaluate_model",
    "polymae.training.knn": "knn",
    "polymae.training.predict": "predict",
    "polymae.training.finetune": "NotFinite Outcome Request finetune linprobe resumed run_request",
    "polymae.training.pretrain": (
        "NotFinite Outcome Request open_batches pretrain resumed run_request training_options"
    ),
    "mindspore_hub_conf": "create_model create_network list_models",
}
OF_A_RESULT = "as_json exit_status findings first_wrong ok reason verdict __getitem__ __str__"
ENTRIES = (
    "MAE mae_vit_base_patch16 mae_vit_large_patch16 mae_vit_huge_patch14 mae_vit_tiny_patch16 mae_vit_small_patch16 "
    "vit_base_patch16 vit_large_patch16 vit_huge_patch14 vit_tiny_patch16 vit_small_patch16 mae_vit_base_patch16_dec512d8b"
)
VARIABLES = (
    "POLYMAE_DEBUG POLYMAE_ENVIRONMENTS POLYMAE_FRAMEWORKS POLYMAE_HOME POLYMAE_MIRROR POLYMAE_OFFLINE POLYMAE_REGISTRY"
)
TARGETS = "clean demo help lint power setup test test-long"
TEXT = {path.relative_to(ROOT).as_posix(): path.read_text() for path in PAGES}
UPSTREAM = "docs/upstream.md"  # whose tables have upstream's options in their first columns, and ours in the last


def options(command: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """The options in a command's help."""
    _, *words = command.split()
    run = main if command.startswith("polymae") else convert_weights.main
    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"):
        run([*(words if run is main else ["torch"]), "--help"])
    return set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", capsys.readouterr().out))


@pytest.mark.parametrize("command", PROMISED)
def test_a_command_has_its_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    there = options(command, capsys)
    assert "--help" in there
    assert set(PROMISED[command].split()) - there == set()
    assert "--wieghts" not in there


def test_every_command_is_promised() -> None:
    assert {command.split()[1] for command in PROMISED if command.startswith("polymae ")} == set(COMMANDS)


@pytest.mark.parametrize("page", TEXT)
def test_every_option_on_a_page_is_promised(page: str) -> None:
    known = OF_OTHERS | {option for listed in PROMISED.values() for option in listed.split()}
    text = re.sub(r"\]\([^)]*\)", "]", TEXT[page])
    if page == UPSTREAM:
        text = re.sub(r"^\|.*\|(?=[^|\n]*\|$)", "|", text, flags=re.MULTILINE)
        text = re.sub(r"`--(accum_iter|batch_size|aa|cosine 0)`", "", text)  # of theirs, beside the tables
    named = set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]+(?=[\s`=)*,;.|])", text))
    assert named - known - {"-inf", "-np"} == set()  # -np.inf, in Python
    for line in commands(page, TEXT[page]):
        words = [word for word in shlex.split(line.text) if not re.match(r"[A-Z_]+=", word)]
        command = next(
            (one for one in sorted(PROMISED, key=len, reverse=True) if words[: one.count(" ") + 1] == one.split()), None
        )
        if command:
            assert {word for word in words if re.match(r"--?[a-z]", word)} - set(PROMISED[command].split()) == set(), (
                line
            )


@pytest.mark.parametrize("module", PYTHON)
def test_python_has_its_names(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    found = import_module(module)
    assert [name for name in PYTHON[module].split() if not hasattr(found, name)] == []
    assert set(getattr(found, "__all__", [])) <= set(PYTHON[module].split())


@pytest.mark.parametrize("page", TEXT)
def test_every_python_name_on_a_page_is_promised(page: str) -> None:
    for module, names in re.findall(
        r"^from (polymae[\w.]*|mindspore_hub_conf) import ([\w, ]+)", TEXT[page], re.MULTILINE
    ):
        assert set(re.split(r",\s*", names.strip())) <= set(PYTHON[module].split()), (page, module)


def test_a_result_has_what_the_page_says() -> None:
    result = parity(lambda given: {"a": given["x"]}, lambda given: {"a": given["x"] + 0}, {"x": np.ones(3)})
    assert [name for name in OF_A_RESULT.split() if not hasattr(result, name)] == []


def test_the_hubs_have_their_entries() -> None:
    for framework in FRAMEWORKS:
        there = entries(framework)
        assert set(ENTRIES.split()) - set(there) == set()
        assert f"{framework}_mae_vit_base_patch16" in entries(None)
    assert set(ENTRIES.split()) - {"MAE"} <= set(list_models())


def test_every_variable_is_read() -> None:
    named = {name for text in TEXT.values() for name in re.findall(r"\bPOLYMAE_[A-Z]+\b", text)}
    assert named <= set(VARIABLES.split())
    ours = [path for path in repository_files("*.py") if path.parts[0] != "docs"]
    code = "\n".join((ROOT / path).read_text() for path in ours if path.name != "test_promised.py")
    assert [name for name in VARIABLES.split() if f'"{name}"' not in code] == []


def test_every_code_of_a_problem_is_on_the_page_and_raised() -> None:
    page = TEXT["docs/conversion.md"].partition("## Problems, for programs")[2].partition("\n## ")[0]
    listed = [
        code for row in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE) for code in re.findall(r"`([\w-]+)`", row)
    ]
    assert sorted(listed) == sorted(get_args(Code))
    shipped = [path for path in repository_files("*.py") if path.parts[0] != "tests" and path.name != "errors.py"]
    code = "\n".join((ROOT / path).read_text() for path in shipped)
    assert [name for name in listed if name != "other" and f'"{name}"' not in code] == []


def test_make_has_its_targets() -> None:
    there = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert sorted(there) == TARGETS.split()
