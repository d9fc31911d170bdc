"""The commands and the Python on README's and docs' pages, found, shrunk to the small model, and run."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest
from repository import ROOT

from polymae.cli import COMMANDS, convert_weights, main

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")] + sorted((ROOT / "docs").glob("*.md"))
# What the pages say of the models that people have, and what stands in for it here: the same on the models of the tests.
SMALL = {
    "mae_vit_base_patch16": "mae_vit_test_patch8",
    "vit_base_patch16": "vit_test_patch8",
    "megengine_mae_vit_base_patch16": "megengine_mae_vit_test_patch8",
    "(2, 3, 224, 224)": "(2, 3, 32, 32)",
    "(2, 196)": "(2, 16)",
    "mae_visualize_vit_base": "mae_visualize_vit_test",  # the published one; a file of that name is there
    "mae_finetuned_vit_base": "mae_finetuned_vit_test",
    "mae_pretrain_vit_base": "mae_pretrain_vit_test",
    "OWNER/polymae": "FOLDER",  # no network here; the hubs themselves are run by test_hub_loaders.py
    'device="cuda"': 'device="cpu"',
}


class Line(NamedTuple):
    """A line of a block of a page."""

    page: str
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.number}: {self.text.strip()}"


class Block(NamedTuple):
    """A fenced block. language: "" (commands), "python" or "text" (what was printed)."""

    language: str
    lines: list[Line]


def blocks(page: str, text: str) -> Iterator[Block]:
    """The fenced blocks of a page."""
    block: Block | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith("```"):
            if block:
                block.lines.append(Line(page, number, line))
        elif block:
            yield block
            block = None
        else:
            block = Block(line[3:].strip(), [])
    assert block is None, f"{page}: a block has no end"


def commands(page: str, text: str) -> Iterator[Line]:
    """Every command of a page: the lines of the blocks without a language, without comments."""
    for block in blocks(page, text):
        for line in block.lines if block.language == "" else ():
            if words := shlex.split(line.text, comments=True):
                bare = re.sub(r"\s+#.*", "", line.text).strip()
                assert len(shlex.split(bare)) == len(words), line
                yield line._replace(text=bare)


def small(text: str) -> str:
    """The same, on the models of the tests."""
    for name, other in SMALL.items():
        before, after = (r"(?<!\w)", r"(?![\w.])") if name[0].isalnum() else ("", "")
        text = re.sub(before + re.escape(name) + after, other, text)
    return text


def parsed(words: list[str]) -> int:
    """Have the real parser understand a command, and nothing done; its status."""
    with pytest.MonkeyPatch.context() as patch:
        for name in (*COMMANDS, "convert_weights"):
            patch.setattr(import_module(f"polymae.cli.{name}"), "run", lambda args: 0)
        return called(words)


def called(words: list[str]) -> int:
    """Run `polymae` or `convert_weights` in this process; its status."""
    program, *rest = words
    try:
        return {"polymae": main, "convert_weights": convert_weights.main}[program](rest)
    except SystemExit as left:
        return int(left.code or 0)


def expanded(words: list[str], folder: Path) -> list[str]:
    """With the names of files where a shell would put them."""
    found = [
        sorted(str(path.relative_to(folder)) for path in folder.glob(word)) if "?" in word else [] for word in words
    ]
    return [name for word, names in zip(words, found) for name in names or [word]]


def run(line: Line, folder: Path) -> str:
    """Run a command in a folder, on the small model. Gives what is wrong with it, or ""."""
    words = shlex.split(line.text)
    while re.match(r"[A-Z_]+=", words[0]):
        del words[0]
    if words[0] == "make":  # it would set up 13 GB; that there is such a target, and what it would do, make itself says
        done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stderr if done.returncode else ""
    if words[0] not in ("polymae", "convert_weights"):
        return "it is neither run nor listed as one that cannot be (NOT_RUN)"
    if parse := refusal(words):
        return parse
    status = called(expanded([small(word) for word in words], folder) + cheaper(words))
    return f"{line.text} ended with status {status}" if status else ""


# MindSpore compiles a step for the longer, the more blocks there are.
TRAINED = (
    "model=img_size=28,patch_size=7,in_chans=1,embed_dim=16,depth=1,num_heads=2,decoder_embed_dim=16,decoder_depth=1,"
    "decoder_num_heads=2"
)


def cheaper(words: list[str]) -> list[str]:
    """What to add to a command, so that NumPy runs where all frameworks would, and what is trained is small."""
    if words[:2] == ["polymae", "pretrain"] and "--resume" not in words:
        return ["--set", TRAINED]
    if words[:2] == ["polymae", "record"]:
        return ["--framework", "numpy", "--level", "forward,loss"]
    if words[:2] != ["polymae", "compare"] or "--traces" in words:
        return []
    beside = ",torch" if "--atol" in words else ""  # a distance is one from another
    return ["--frameworks", f"numpy{beside}", "--level", "weights,forward"]


def refusal(words: list[str]) -> str:
    """What the real parser has against a command, or ""."""
    return f"{shlex.join(words)} is not understood" if parsed(words) else ""


# By which words a statement on a page is one of a framework's.
_MARKS = {
    "torch": r"\btorch\b",
    "megengine": r"\b(megengine|mge)(\b|_)",
    "mindspore": r"\bmindspore(\b|_)|\bcreate_model\b",
    "oneflow": r"\boneflow\b",
}


def python(page: str, text: str, framework: str) -> Iterator[tuple[Line, str]]:
    """The statements of a page's Python that a process with this framework is to run, each with its block's first line.

    A statement without a framework's name goes where the one before it went; PyTorch runs blocks that have none. Imports
    and sys.path are everybody's. The worked examples are left out: test_library_traces.py runs them.
    """
    examples = {path.read_text().rstrip("\n") for path in (ROOT / "docs" / "examples").glob("*.py")}
    for block in blocks(page, text):
        code = "\n".join(line.text for line in block.lines)
        if block.language != "python" or code in examples:
            continue
        current = "" if any(re.search(mark, code) for mark in _MARKS.values()) else "torch"
        body = []
        for statement in ast.parse(code).body:
            source = ast.get_source_segment(code, statement) or ""
            marked = [name for name, mark in _MARKS.items() if re.search(mark, source)]
            imported = isinstance(statement, ast.Import | ast.ImportFrom)
            ours = imported and not re.match(r"(import|from) (torch|megengine|mindspore|oneflow)\b", source)
            current = marked[0] if marked and not ours else current
            if ours or source.startswith("sys.") or current in ("", framework):
                body.append(small(source))
        if (
            any(framework in (name for name, mark in _MARKS.items() if re.search(mark, part)) for part in body)
            or current == framework
        ):
            yield block.lines[0], "\n".join(body)
