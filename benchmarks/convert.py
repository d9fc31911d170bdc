"""How long a conversion takes beside `cp` and beside what people would do with the frameworks themselves.

    .venv/bin/python benchmarks/convert.py --sizes base large huge --out docs/benchmarks/convert.md

Every job is a process of its own; the jobs take turns, and the fastest of the repetitions counts. `cp` copies the same file.
PolyMAE's times include what the others leave out: hashing every value, looking for NaN, fsync, reading the result back.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from polymae.compare.record.environment import processor

MODELS = {"base": "mae_vit_base_patch16", "large": "mae_vit_large_patch16", "huge": "mae_vit_huge_patch14"}
# The work of a script is timed from inside as well: starting Python and importing a framework takes its own time.
_TIMED = "import time; started = time.perf_counter()\n{work}\nprint('inside', time.perf_counter() - started)"
_OURS = "from polymae.cli.convert_weights import main\n" + _TIMED.format(work="main({arguments!r})")
_LOAD = "state = torch.load({source!r}, weights_only=True)['model']\n"
_FRAMEWORKS = {
    "torch.load": ("import torch", _LOAD),
    "torch.load, torch.save": ("import torch", _LOAD + "torch.save({{'model': state}}, {target!r})"),
    "torch.load, safetensors.torch.save_file": (
        "import torch, safetensors.torch",
        _LOAD + "safetensors.torch.save_file(state, {target!r})",
    ),
    "torch.load, megengine.save": (
        "import torch, megengine",
        _LOAD + "megengine.save({{n: t.numpy() for n, t in state.items()}}, {target!r})",
    ),
    "torch.load, mindspore.save_checkpoint": (
        "import torch, mindspore",
        _LOAD + "mindspore.save_checkpoint([{{'name': n, 'data': mindspore.Tensor(t.numpy())}} for n, t in state.items()], "
        "{target!r})",
    ),
    "torch.load, oneflow.save": (
        "import torch, oneflow",
        _LOAD + "oneflow.save({{n: oneflow.tensor(t.numpy()) for n, t in state.items()}}, {target!r})",
    ),
}  # fmt: skip
_ENDINGS = {"megengine.save": ".pkl", "mindspore.save_checkpoint": ".ckpt", "oneflow.save": ""}


@dataclass
class Job:
    """A command and its cost: the fastest repetition's seconds, outside and inside, and its processor seconds."""

    name: str
    command: list[str]
    target: Path
    wall: float = float("inf")
    inside: float = float("inf")
    processor: float = float("inf")
    walls: list[float] = field(default_factory=list)

    def run(self) -> None:
        """Once more, into a target that is not there."""
        _remove(self.target)
        before, started = os.times(), time.perf_counter()
        done = subprocess.run(self.command, capture_output=True, text=True)
        wall, after = time.perf_counter() - started, os.times()
        if done.returncode:
            raise SystemExit(f"{self.name} failed:\n{done.stderr[-2000:]}")
        inside = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("inside ")]
        used = after.children_user + after.children_system - before.children_user - before.children_system
        self.walls.append(wall)
        self.wall = min(self.wall, wall)
        self.inside = min(self.inside, float(inside[-1]) if inside else wall)
        self.processor = min(self.processor, used)
        _remove(self.target)


def jobs(folder: Path, size: str, peers: bool) -> list[Job]:
    """The commands to compare, with their files made."""
    source = folder / f"{size}.pth"
    make = (
        "import sys; from polymae.backends.initial import initial_weights; from polymae.backends.presets import "
        "model_config; from polymae.convert.writing import official_checkpoint; config = model_config(sys.argv[1]); "
        "official_checkpoint(sys.argv[2], config, initial_weights(config))"
    )
    subprocess.run([sys.executable, "-c", make, MODELS[size], str(source)], check=True)
    sources = {".pth": source}
    made = [Job("cp", ["cp", str(source), str(folder / "copy")], folder / "copy")]
    synced = f"cp '{source}' '{folder}/copy' && sync '{folder}/copy'"
    made.append(Job("cp, then fsync", ["sh", "-c", synced], folder / "copy"))
    for ending, framework in ((".safetensors", "safetensors"), (".pkl", "megengine"), (".ckpt", "mindspore")):
        sources[ending] = folder / f"{size}{ending}"
        subprocess.run(
            _convert([framework, "-c", str(source), "-o", str(sources[ending])]), check=True, capture_output=True
        )
        target = folder / f"out{ending}"
        made.append(
            Job(f"{ending} to {ending}", _convert([framework, "-c", str(sources[ending]), "-o", str(target)]), target)
        )
    for name, framework, ending, more in (
        (".pth to .pth", "torch", ".pth", []),
        (".pth to .safetensors", "safetensors", ".safetensors", []),
        (".pth to MegEngine .pkl", "megengine", ".pkl", []),
        (".pth to MindSpore .ckpt", "mindspore", ".ckpt", []),
        (".pth to OneFlow folder", "oneflow", "", []),
        (".pth to Hugging Face folder", "huggingface", "", []),
        (".safetensors to mindformers .ckpt (transposes)", "mindspore", ".ckpt", ["--to", "mindformers-0.8"]),
        (".safetensors to LiBai folder (interleaves)", "oneflow", "", ["--to", "libai"]),
        (".pth to .npz", "numpy", ".npz", []),
    ):
        target = folder / f"result{ending}"
        origin = sources[".safetensors" if name.startswith(".safetensors") else ".pth"]
        made.append(Job(name, _convert([framework, "-c", str(origin), "-o", str(target), *more]), target))
    if peers:
        for name, (imports, work) in _FRAMEWORKS.items():
            target = folder / f"peer{_ENDINGS.get(name.split(', ')[-1], '.x')}"
            script = imports + "\n" + _TIMED.format(work=work.format(source=str(source), target=str(target)))
            made.append(Job(name, [sys.executable, "-c", script], target))
    return made


def _convert(arguments: list[str]) -> list[str]:
    return [sys.executable, "-c", _OURS.format(arguments=arguments)]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.with_name(f"{path.name}.polymae.json").unlink(missing_ok=True)


def table(size: str, done: list[Job], megabytes: float) -> str:
    """The measurements as a Markdown table."""
    copy = done[0]
    lines = [
        f"## {size} ({megabytes:,.0f} MB)",
        "",
        "| | seconds | times `cp` | without start-up | times `cp` | processor seconds | slowest |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {job.name} | {job.wall:.2f} | {job.wall / copy.wall:.2f} | {job.inside:.2f} | {job.inside / copy.wall:.2f} "
        f"| {job.processor:.2f} | {max(job.walls):.2f} |"
        for job in done
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print; write the tables to --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=MODELS, default=["base"])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--no-peers", action="store_true", help="only cp and PolyMAE, no framework")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--out", type=Path, help="a Markdown file for the tables")
    args = parser.parse_args()
    packages = ("numpy", "torch", "megengine", "mindspore", "oneflow", "safetensors", "blake3")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    text = (
        "# Conversion speed\n\nMeasured by `benchmarks/convert.py` "
        f"({args.repetitions} repetitions, taking turns; the fastest counts, the slowest is shown) on {processor()}, "
        f"{os.cpu_count()} cores, {platform.system()} {platform.release().split('-')[0]}, files in the page cache. "
        f"Python {platform.python_version()}, {versions}. PolyMAE's times include hashing, the search for NaN, fsync and "
        "reading the result back; the others' do not.\n"
    )
    for size in args.sizes:
        with tempfile.TemporaryDirectory(dir=args.folder, prefix="polymae-bench-") as name:
            done = jobs(Path(name), size, not args.no_peers)
            for _ in range(args.repetitions):
                for job in done:
                    job.run()
            text += "\n" + table(size, done, (Path(name) / f"{size}.pth").stat().st_size / 1e6)
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text)


if __name__ == "__main__":
    main()
