"""docs/upstream.md: every upstream flag has a row, whose setting exists, and what a line of upstream's computes is what the line
beside it computes. test_upstream_runs.py runs them."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from functools import cache
from typing import Any

import pages
import pytest
from upstream_flags import OFFICIAL, OTHERS, TASKS
from upstream_page import FLAGS, PAGE, PAIRS, PENDING, SETTINGS, TABLES, TEXT, known, option, settings_of, words_in

import polymae
from polymae.cli import COMMANDS
from polymae.training.reading import KINDS, read_recipe
from polymae.training.recipe import leaves, values


def test_the_page_is_read_whole() -> None:
    assert {table.head[0].split(" of ")[0] for table in TABLES} == {"there", "flag", "setting"}
    assert all(len(row) == len(table.head) for table in TABLES for row in table.rows)
    assert TEXT.count("\n`polymae") == 0
    projects = re.findall(r"^## (.*)", TEXT, re.MULTILINE)
    assert projects == [
        "facebookresearch/mae", "MAE-MegEngine", "mindformers", "LiBai projects/MAE", "FlyEgle/MAE-pytorch",
    ]  # fmt: skip
    assert len(PAIRS) >= 45


@pytest.mark.parametrize(("there", "here"), PAIRS, ids=[str(number) for number in range(len(PAIRS))])
def test_a_line_there_is_a_line_here_or_says_why_not(there: str, here: str) -> None:
    assert words_in(there) or there.startswith("the same")
    if here.startswith(PENDING):
        pending(here)
    elif here == "[the same names](interfaces.md)":
        names = [call[1] for line in words_in(there) if (call := re.match(r"(\w+)[.(]", line))]
        assert names
        assert all(hasattr(polymae, name) for name in names)
    elif here == "Python below":
        assert "hub.load(" in there  # a block of Python, which test_docs.py runs
    else:
        assert re.fullmatch(r"`[^`]+`( then `[^`]+`)*", here)
        assert [pages.refusal(shlex.split(line)) for line in words_in(here)] == [""] * len(words_in(here))


def pending(cell: str) -> None:
    """What is not built yet is a command of an issue, and is not there."""
    found = re.match(rf"{PENDING}: `polymae (\w+)` \(issue \d+\)", cell)
    assert found, cell
    assert found[1] not in COMMANDS, f"`polymae {found[1]}` is built: {PAGE} still says that it is not"


def test_every_flag_of_the_official_scripts_has_its_row() -> None:
    table = FLAGS["main_pretrain.py"]
    assert table.head[1:4] == list(TASKS)
    there = {words_in(row[0])[0]: tuple(row[1:4]) for row in table.rows}
    assert len(there) == len(table.rows)
    assert there == OFFICIAL


@pytest.mark.parametrize("script", OTHERS)
def test_every_flag_of_the_other_scripts_has_its_row(script: str) -> None:
    there = [flag for row in FLAGS[script].rows for flag in words_in(row[0])]
    assert sorted(there) == sorted(OTHERS[script].split())


# By script, or other table, the tasks whose settings its rows may name.
TASKS_OF = {
    **{script: (task,) for script, task in TASKS.items()},
    "run_mindformer.py": ("pretrain", "finetune"), "train_net.py": ("pretrain", "finetune"),
    "train_mae.py": ("pretrain", "finetune"),
}  # fmt: skip


def named_first(cell: str) -> str:
    """Of a cell that names settings and options with commas between them, that part."""
    return re.split(r"[:;(]| of | where | for | or | times ", cell, maxsplit=1)[0]


def refused(cell: str, tasks: tuple[str, ...]) -> list[str]:
    """The settings, options and commands that a cell begins with and that are not there."""
    wrong = []
    for name in words_in(named_first(cell)):
        if name.startswith("polymae "):
            command, *options = name.split()[1:]
            there = command in COMMANDS and all(option in help_of(command) for option in options)
        elif name.startswith("-"):
            there = any(name in help_of(task) for task in (*tasks, "pretrain", "finetune"))
        else:
            there = all(name in known(task) for task in tasks)
        wrong += [] if there else [name]
    return wrong


@cache
def help_of(command: str) -> str:
    """The help of `polymae COMMAND`, and that of convert_weights."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        pages.called(["polymae", command, "--help"])
        pages.called(["convert_weights", "torch", "--help"])
    return text.getvalue()


def rows_with_tasks() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    for row in FLAGS["main_pretrain.py"].rows:
        tasks = tuple(TASKS[script] for script, default in zip(TASKS, row[1:4]) if default)
        yield row[0], row[-1], tasks
    for script, table in FLAGS.items():
        if script != "main_pretrain.py":
            for row in table.rows:
                yield row[0], row[-1], ()
    for row in SETTINGS:
        yield row[0], row[-1], ()


@pytest.mark.parametrize(("flag", "here", "tasks"), [*rows_with_tasks()], ids=lambda value: str(value)[:40])
def test_a_row_leads_to_what_exists(flag: str, here: str, tasks: tuple[str, ...]) -> None:
    assert words_in(flag)
    if here.startswith(PENDING):
        pending(here)
    elif here.startswith("none:"):
        assert len(here) > len("none: the same") - 1
    else:
        assert words_in(named_first(here)), here
        if tasks or any(name.startswith(("-", "polymae")) for name in words_in(named_first(here))):
            assert refused(here, tasks) == []
        else:  # of one task at least
            assert min(len(refused(here, (task,))) for task in KINDS) == 0, here


def test_a_row_of_a_setting_that_is_gone_would_be_seen() -> None:
    assert refused("`mask_share`: of the patches", ("pretrain",)) == ["mask_share"]
    assert refused("`mask_ratio`", ("finetune",)) == ["mask_ratio"]
    assert refused("`--epocs`", ()) == ["--epocs"]
    assert refused("`polymae measure`", ()) == ["polymae measure"]


def flags_of(line: str) -> tuple[str, dict[str, str], int]:
    """The task of an official line's script, its flags over the script's defaults, and the number of processes."""
    words = [word for word in shlex.split(line) if not re.match("[A-Z_]+=", word)]
    place, script = next((place, word) for place, word in enumerate(words) if word.endswith(".py"))
    column = list(TASKS).index(script.replace("submitit_", "main_"))
    given = {flag: defaults[column] for flag, defaults in OFFICIAL.items() if defaults[column]}
    processes = [int(word.partition("=")[2]) for word in words[:place] if word.startswith("--nproc_per_node=")]
    for word, following in zip(words[place + 1 :], [*words[place + 2 :], "--"]):
        value = "on" if following.startswith("--") else following
        if word == "--nodes":  # of eight GPUs each
            processes = [8 * int(value)]
        elif word in ("--cls_token", "--global_pool"):  # the two set one thing
            given |= {"--cls_token": "off", "--global_pool": "off", word: "on"}
        elif word.startswith("--") and word not in ("--job_dir", "--use_volta32"):
            assert word in given, word
            given[word] = value
    return list(TASKS.values())[column], given, processes[0] if processes else 1


def meant(task: str, given: dict[str, str], processes: int) -> dict[str, Any]:
    """The values of our settings that an official line's flags mean, by dotted name."""
    rows = {words_in(row[0])[0]: row[-1] for row in FLAGS["main_pretrain.py"].rows}
    dotted = {name.rpartition(".")[2]: name for name, leaf in leaves(KINDS[task]) if not leaf.metadata["free"]}
    found: dict[str, Any] = {}
    for flag, value in given.items():
        for name in words_in(named_first(rows[flag])):
            if name in dotted:
                found[dotted[name]] = read(value)
    found["batch.batch_size"] = int(given["--batch_size"]) * int(given["--accum_iter"]) * processes
    found["input_size"] = None  # the model's, which is 224
    if task == "linprobe":  # a batch norm's statistics are those of one process
        found["batch.micro_batch_size"] = int(given["--batch_size"])
    if task != "pretrain":
        found |= {"pooling": "gap" if given["--global_pool"] == "on" else "cls", "num_classes": None}  # the data's
    return found


def read(value: str) -> Any:
    """A flag's value."""
    if value in ("none", "on", "off", "''"):
        return {"none": None, "on": True, "off": False, "''": ""}[value]
    try:
        return float(value)
    except ValueError:
        return value


TRAININGS = [
    (words_in(there)[0], words_in(here)[0])
    for there, here in PAIRS
    if re.search(r"(main|submitit)_\w+\.py", there)
    and re.match("`polymae (pretrain|finetune|linprobe) .*--recipe", here)
]


@pytest.mark.parametrize(("there", "here"), TRAININGS, ids=[str(number) for number in range(len(TRAININGS))])
def test_a_line_computes_what_the_official_line_computes(there: str, here: str) -> None:
    task, given, processes = flags_of(there)
    words = shlex.split(here)
    assert words[1] == task
    recipe = read_recipe(words[words.index("--recipe") + 1], settings_of(words), KINDS[task])
    ours, expected = values(recipe), meant(task, given, processes)
    if task == "linprobe":  # a part is no larger than the batch
        ours["batch.micro_batch_size"] = min(ours["batch.micro_batch_size"], ours["batch.batch_size"])
    if ours["optimizer.lr"] is not None:  # then blr is not read
        expected["optimizer.blr"] = ours["optimizer.blr"]
    assert {name: ours[name] for name in expected} == expected
    # Of what the scripts have no flag for, a recipe changes the precision alone, which is theirs.
    bound = {name for name, leaf in leaves(KINDS[task]) if not leaf.metadata["free"]}
    usual = values(KINDS[task]()) | {"computing.precision": "float16"}
    assert {name: ours[name] for name in bound - set(expected)} == {name: usual[name] for name in bound - set(expected)}
    assert (option(words, "--weights") or "''") == given.get("--finetune", "''")


def test_an_evaluation_takes_the_file_and_the_batches_of_the_official_line() -> None:
    pairs = [(there, words_in(here)[0]) for there, here in PAIRS if "--eval " in there]
    assert len(pairs) == 5
    for there, here in pairs:
        _, given, _ = flags_of(words_in(there)[0])
        words = shlex.split(here)
        assert (option(words, "--weights"), option(words, "--batch-size")) == (given["--resume"], given["--batch_size"])
        assert ("--processes" in words) == (given["--dist_eval"] == "on")


# Of the other projects' lines, by a part of them, what they mean for a step; worked out by hand.
BY_HAND = {
    "train.num_accumulation_steps=2": {
        "batch.batch_size": 64, "batch.accumulate": 2, "optimizer.lr": 1e-3, "schedule.epochs": 100, "seed": 1234,
    },
    "--lr_schedule.learning_rate 1e-3": {"batch.batch_size": 128, "optimizer.lr": 1e-3, "schedule.epochs": 100},
    "as the file is written": {"batch.batch_size": 64, "schedule.epochs": 10, "schedule.warmup_epochs": 40},
    "configs/mae_pretraining.py 8`": {
        "batch.batch_size": 8 * 64 * 8, "batch.accumulate": 8, "optimizer.blr": 1.5e-4, "schedule.warmup_epochs": 40,
        "schedule.epochs": 800, "schedule.shape": "cosine_from_start", "norm_pix_loss": True,
    },
    "weight_style=pytorch": {
        "batch.batch_size": 8 * 32 * 4, "optimizer.blr": 5e-4, "optimizer.layer_decay": 0.65, "schedule.epochs": 100,
        "mixing.mixup": 0.8, "mixing.cutmix": 1.0, "drop_path": 0.1, "head_std": 2e-5, "norm_from_encoder": False,
    },
    "weight_style=oneflow": {"head_std": 0.02, "norm_from_encoder": True},
    "--layer_scale True": {"optimizer.layer_decay": 0.65, "optimizer.decayed": "first_groups"},
    "--batch_size 256 --num_workers 32 --lr 1.2e-3": {
        "batch.batch_size": 8 * 256, "optimizer.lr": 1.2e-3, "schedule.epochs": 400, "schedule.warmup_epochs": 40,
        "optimizer.weight_decay": 0.05, "schedule.shape": "cosine_from_start", "cutmix": 1.0, "norm_pix_loss": False,
    },
    "`--lr 1.5e-4 --max_epochs 300`": {
        "batch.batch_size": 8 * 256, "optimizer.lr": 1.5e-4, "schedule.epochs": 300, "schedule.warmup_epochs": 40,
    },
    "train_mae.py --finetune 1": {"optimizer.lr": 0.1, "schedule.epochs": 90, "schedule.warmup_epochs": 5, "drop_path": 0.0},
}  # fmt: skip


@pytest.mark.parametrize("part", BY_HAND)
def test_a_line_computes_what_another_projects_line_computes(part: str) -> None:
    ((_, here),) = [pair for pair in PAIRS if part in pair[0]]
    words = shlex.split(words_in(here)[0])
    ours = values(read_recipe(option(words, "--recipe"), settings_of(words), KINDS[words[1]]))
    assert {name: ours[name] for name in BY_HAND[part]} == BY_HAND[part]


def test_a_line_that_computes_something_else_would_be_seen() -> None:
    there, here = TRAININGS[0]
    for wrong in ("--recipe official-base", "--recipe official-large --set mask_ratio=0.7"):
        with pytest.raises(AssertionError):
            test_a_line_computes_what_the_official_line_computes(there, here.replace("--recipe official-large", wrong))
