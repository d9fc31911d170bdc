"""docs/upstream.md: every line of its right columns runs on the small model and leaves its product, and every upstream flag has a
row, whose setting exists; what a line of the official scripts computes is what the line beside it computes."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pages
import pytest
from frameworks import frameworks_under_test
from made_images import folder_of_classes, write
from repository import ROOT
from untested import require
from upstream_flags import OFFICIAL, OTHERS, TASKS

import polymae
from polymae.backends import FRAMEWORKS
from polymae.backends.config import Config
from polymae.backends.initial import initial_weights
from polymae.backends.presets import model_config
from polymae.backends.runtime import load_backend
from polymae.backends.spec import encoder_params
from polymae.cli import COMMANDS
from polymae.cli.convert_weights import main as convert
from polymae.convert.writing import official_checkpoint
from polymae.training.reading import KINDS, read_any_recipe, read_recipe
from polymae.training.recipe import leaves, values

PAGE = "docs/upstream.md"
TEXT = (ROOT / PAGE).read_text()
PENDING = "not built yet"
CLASSES = tuple(f"n{number:08}" for number in range(10))


class Table(NamedTuple):
    """A table of the page: the number of its first line, its head, and its rows, each a list of cells."""

    line: int
    head: list[str]
    rows: list[list[str]]


def tables(text: str) -> Iterator[Table]:
    table: Table | None = None
    for number, line in enumerate(text.splitlines(), 1):
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else None
        if cells is None:
            table = None
        elif table is None:
            table = Table(number, cells, [])
            yield table
        elif not set(cells[0]) <= {"-"} or not cells[0]:
            table.rows.append(cells)


def words_in(cell: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)


TABLES = list(tables(TEXT))
PAIRS = [(row[0], row[1]) for table in TABLES if table.head == ["there", "here"] for row in table.rows]
LINES = [line for _, here in PAIRS if re.match("`(polymae|convert_weights) ", here) for line in words_in(here)]
FLAGS = {table.head[1]: table for table in TABLES if table.head[0] == "flag"}
SETTINGS = [row for table in TABLES if table.head[0].startswith("setting of") for row in table.rows]


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
        names = [word[0] for line in words_in(there) if (word := re.match(r"\w+", line))]
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


def known(task: str) -> set[str]:
    return {name.rpartition(".")[2] for name, _ in leaves(KINDS[task])}


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


# --- what the official scripts' lines compute


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
    if ours["optimizer.lr"] is not None:  # then blr is not read
        expected["optimizer.blr"] = ours["optimizer.blr"]
    assert {name: ours[name] for name in expected} == expected
    assert ("--weights" in words) == bool(given.get("--finetune", "''") != "''")


def settings_of(words: list[str]) -> list[str]:
    """What follows --set."""
    found: list[str] = []
    for word in words[words.index("--set") + 1 :] if "--set" in words else ():
        if word.startswith("--"):
            break
        found.append(word)
    return found


def test_a_line_that_computes_something_else_would_be_seen() -> None:
    there, here = TRAININGS[0]
    for wrong in ("--recipe official-base", "--recipe official-large --set mask_ratio=0.7"):
        with pytest.raises(AssertionError):
            test_a_line_computes_what_the_official_line_computes(there, here.replace("--recipe official-large", wrong))


# --- the lines, run on the small model

SMALLER = {  # settings behind those of a line
    "batch_size": "4", "accumulate": "1", "steps": "1", "workers": "0", "precision": "float32", "compiled": "false",
    "tensorboard": "false", "pictures_every_epochs": "null", "evaluation_batch": "8",
}  # fmt: skip


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the lines take from elsewhere, of the small model."""
    folder = tmp_path_factory.mktemp("upstream")
    folder_of_classes(folder / "IMAGENET" / "train", 2, CLASSES)
    folder_of_classes(folder / "IMAGENET" / "val", 1, CLASSES)
    for part in ("train", "val"):
        paths = sorted((folder / "IMAGENET" / part).rglob("*.png"))
        rows = [f"{path.relative_to(folder)}, {CLASSES.index(path.parent.name)}" for path in paths]
        (folder / f"{part}.txt").write_text("\n".join(rows) + "\n")
    write(folder / "photos" / "fox.png")
    mae, vit = model_config("mae_vit_test_patch8"), model_config("vit_test_patch8")
    probe = model_config("vit_test_patch8", pooling="cls", head_norm=True)
    official_checkpoint(folder / "mae_visualize_vit_base.pth", mae, initial_weights(mae, 1))
    weights = initial_weights(mae, 2)
    encoder = {param.name: weights[param.name] for param in encoder_params(mae)}
    for size in ("base", "large", "huge"):
        official_checkpoint(folder / f"mae_pretrain_vit_{size}.pth", mae, encoder)
        official_checkpoint(folder / f"mae_finetuned_vit_{size}.pth", vit, initial_weights(vit, 3))
    official_checkpoint(folder / "probe.pth", probe, initial_weights(probe, 4))
    for name, model, target, dialect in (
        ("mae_vit_base_p16.ckpt", "mae_visualize_vit_base.pth", "mindspore", "mindformers-0.8"),
        ("vit_base_p16.ckpt", "mae_finetuned_vit_base.pth", "mindspore", "mindformers-0.8"),
        ("libai_model", "mae_visualize_vit_base.pth", "oneflow", "libai"),
        ("libai_classifier", "mae_finetuned_vit_base.pth", "oneflow", "libai"),
    ):
        assert convert([target, "-c", str(folder / model), "-o", str(folder / name), "--to", dialect]) == 0
    for name, preset in (
        ("flyegle_mae.pth", "flyegle_mae_vit_test_patch8"),
        ("weights.pth", "flyegle_vit_test_patch8"),
    ):
        config = model_config(preset)
        weights = initial_weights(config, 5)
        if "mask_token" in weights:  # FlyEgle's has one value for every 16 entries
            weights["mask_token"] = np.repeat(weights["mask_token"][..., ::16], 16, axis=-1)
        official_checkpoint(folder / f"plain-{name}", config, weights)
        line = ["torch", "-c", str(folder / f"plain-{name}"), "-o", str(folder / name), "-m", preset, "--to", "flyegle"]
        assert convert(line) == 0
    return folder


@pytest.fixture
def folder(things: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, the working folder."""
    shutil.copytree(things, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def option(words: list[str], name: str) -> str | None:
    return words[words.index(name) + 1] if name in words else None


def smaller(words: list[str], framework: str) -> list[str]:
    """A line of ours on the small model, in a framework, on the CPU."""
    words = [pages.small(word) for word in words]
    if "--framework" in words:
        words[words.index("--framework") + 1] = framework
    if "--device" in words:
        place = words.index("--device")
        del words[place : place + 2]
    if words[0] != "polymae" or words[1] not in KINDS:
        return words + pages.cheaper(words)
    recipe = option(words, "--recipe")
    settings = dict(SMALLER)
    if recipe is None:  # it goes on, with what it was
        settings = {"steps": "2" if "--out" not in words else "11", "workers": "0", "compiled": "false"}
        words += ["--framework", framework] if "--framework" not in words else []
    else:
        model = read_any_recipe(recipe, settings_of(words)).model  # type: ignore[attr-defined]
        settings["model"] = re.sub(r"(tiny|small|base|large|huge)_patch\d+", "test_patch8", model)
    there = known(words[1])
    return [*words, "--set", *(f"{name}={value}" for name, value in settings.items() if name in there)]


def prepared(words: list[str], framework: str, folder: Path) -> None:
    """Make what a line goes on from: a run of ours, or a file that a script's training would have left."""
    source = option(words, "--resume") or ""
    if source.endswith(".pth"):
        require("torch")
        training_checkpoint(folder / source)
    elif source:
        line = f"polymae {words[1]} --framework {framework} --data IMAGENET --out {source} --recipe official-base"
        assert pages.called(smaller(shlex.split(line), framework)) == 0
    elif (option(words, "--weights") or "").startswith("OUT/"):
        (folder / "OUT").mkdir()
        shutil.copy(folder / "probe.pth", folder / (option(words, "--weights") or ""))


def training_checkpoint(path: Path) -> None:
    """As the official script saves it after an epoch, of the small model, whose moments are zeros."""
    import torch

    config: Config = model_config("mae_vit_test_patch8")
    model = load_backend("torch").build(config, initial_weights(config, 1))
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    spared = [p for name, p in trained if p.ndim == 1 or name.endswith(".bias")]
    decayed = [p for name, p in trained if not (p.ndim == 1 or name.endswith(".bias"))]
    optimizer = torch.optim.AdamW([{"params": spared, "weight_decay": 0.0}, {"params": decayed}], lr=1e-3)
    for _, parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    args = argparse.Namespace(model="mae_vit_test_patch8", epochs=4, batch_size=2, accum_iter=1, blr=1e-3, lr=1e-3)
    path.parent.mkdir()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 0, "args": args}, path)


def trained(words: list[str], printed: str) -> None:
    run = Path(option(words, "--out") or option(words, "--resume") or "")
    assert (run / "checkpoints/last/weights.safetensors").is_file()
    assert all(json.loads(line)["loss"] > 0 for line in (run / "steps.jsonl").read_text().splitlines())


def measured(words: list[str], printed: str) -> None:
    part = option(words, "--part")
    if part:
        assert Path(option(words, "--scores") or "").is_file()
    else:
        assert re.search(r"top-1 +\d+\.\d+ .*\(\d+ images", printed)


def predicted(words: list[str], printed: str) -> None:
    assert "photos/fox.png" in printed
    assert printed.count("%") == 5


def compared(words: list[str], printed: str) -> None:
    assert "roundoff" in printed or "explained" in printed


def converted(words: list[str], printed: str) -> None:
    (path,) = re.findall(r"^wrote +(.*?): \d+ tensors", printed, re.MULTILINE)
    assert Path(path).exists()
    assert path == (option(words, "-o") or option(words, "--mindspore_path") or f"pretrained/{option(words, '-m')}.pkl")


PRODUCTS: dict[str, Callable[[list[str], str], None]] = {
    "pretrain": trained, "finetune": trained, "linprobe": trained, "evaluate": measured, "knn": measured,
    "predict": predicted, "compare": compared, "convert_weights": converted,
}  # fmt: skip


def runs() -> list[tuple[str, tuple[str, ...]]]:
    """The lines of each cell, once, with the frameworks that they are run in: their own, and NumPy."""
    cells = [tuple(words_in(here)) for _, here in PAIRS if re.match("`(polymae|convert_weights) ", here)]
    there = frameworks_under_test()
    return [
        (framework, cell)
        for cell in dict.fromkeys(cells)
        for framework in dict.fromkeys(("numpy", own_framework(shlex.split(cell[0]))))
        if framework in there
    ]


def own_framework(words: list[str]) -> str:
    """The one that a line names; a run is gone on with in PyTorch."""
    return option(words, "--framework") or ("torch" if "--resume" in words else "numpy")


@pytest.mark.parametrize(("framework", "cell"), runs(), ids=[f"{run[0]}-{number}" for number, run in enumerate(runs())])
def test_a_line_runs_and_leaves_its_product(
    framework: str, cell: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in cell:
        words = shlex.split(line)
        prepared(words, framework, folder)
        small = smaller(words, framework)
        capsys.readouterr()
        status = pages.called(small)
        told = capsys.readouterr()
        assert status == 0, f"{shlex.join(small)}\n{told.err[-2000:]}"
        PRODUCTS[words[1] if words[0] == "polymae" else words[0]](small, told.out)


def test_every_framework_has_a_line() -> None:
    there = {option(shlex.split(line), "--framework") for line in LINES}
    assert there >= set(FRAMEWORKS) - {"numpy"}
