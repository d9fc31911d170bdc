"""How long a training step takes and how much memory: every framework's, beside transformers' and mindcv's, and a matrix product.

    .venv/bin/python benchmarks/training.py --models small base --threads 1 2 --out docs/benchmarks/training.md

Every contender is a process of its own; they take turns, a step each, so that what else the machine does meets all of them.
The fastest step counts, and of ratios the median over the rounds. The peak memory is that of another process that does three
steps and nothing else. A contender that is not installed here is left out and named.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from polymae.backends import FRAMEWORKS
from polymae.backends.blas import thread_variables, variables
from polymae.backends.config import MAEConfig, keep_length
from polymae.backends.installing import installed
from polymae.backends.presets import model_config

BATCH, RATE = 8, 1e-4
MODELS = {
    "small": "img_size=64,patch_size=8,embed_dim=192,depth=6,num_heads=3,"
    "decoder_embed_dim=96,decoder_depth=2,decoder_num_heads=3",
    "base": "mae_vit_base_patch16",
}
PEERS = {"transformers": "torch", "mindcv": "mindspore"}  # other projects' MAE, and the framework of each
PRODUCT = "matrix product"
SIDE = 2048  # of the matrix product's square factors


class Step(NamedTuple):
    """One step: seconds that passed, and seconds of the processor."""

    wall: float
    cpu: float

    def cost(self, threads: int) -> float:
        """The seconds that count: of one thread CPU seconds, which other work adds little to; of several the time passed."""
        return self.cpu if threads == 1 else self.wall


def config_of(model: str) -> MAEConfig:
    """A model's configuration."""
    config = model_config(MODELS[model])
    assert isinstance(config, MAEConfig)
    return config


def operations(config: MAEConfig) -> float:
    """Floating-point operations of the matrix products of one step: three times those of the forward pass."""

    def stack(depth: int, tokens: int, width: int, hidden: int) -> int:
        return depth * tokens * (8 * width**2 + 4 * tokens * width + 4 * width * hidden)

    L, D, E = config.num_patches, config.embed_dim, config.decoder_embed_dim
    K = keep_length(L, 0.75)
    products = 2 * L * config.patch_dim * D + 2 * (K + 1) * D * E + 2 * (L + 1) * E * config.patch_dim
    encoder = stack(config.depth, K + 1, D, config.mlp_dim(D))
    decoder = stack(config.decoder_depth, L + 1, E, config.mlp_dim(E))
    return 3.0 * BATCH * (products + encoder + decoder)


def ours(framework: str, model: str, threads: int) -> Callable[[], Any]:
    """A step of PolyMAE in a framework, from arrays in NumPy."""
    from polymae.backends.optimization import Settings
    from polymae.backends.runtime import load_backend
    from polymae.compare.record.inputs import random_inputs
    from polymae.training.steps import take

    runtime, config = load_backend(framework), config_of(model)
    runtime.setup(threads=threads)
    subject = runtime.build(config)
    training = runtime.training(subject, runtime.optimizer(subject, Settings()))
    batch = random_inputs(config, BATCH)
    return lambda: take(training, batch, RATE)


def transformers(model: str, threads: int) -> Callable[[], Any]:
    """The same step of transformers' model, with its default attention, and PyTorch's fused AdamW."""
    import torch
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    from polymae.compare.record.inputs import random_inputs

    torch.set_num_threads(threads)
    config = config_of(model)
    peer = ViTMAEForPreTraining(
        ViTMAEConfig(
            hidden_size=config.embed_dim,
            num_hidden_layers=config.depth,
            num_attention_heads=config.num_heads,
            intermediate_size=config.mlp_dim(config.embed_dim),
            image_size=config.img_size[0],
            patch_size=config.patch_size,
            decoder_hidden_size=config.decoder_embed_dim,
            decoder_num_hidden_layers=config.decoder_depth,
            decoder_num_attention_heads=config.decoder_num_heads,
            decoder_intermediate_size=config.mlp_dim(config.decoder_embed_dim),
        )
    ).train()
    decayed = [p for p in peer.parameters() if p.requires_grad and p.ndim > 1]
    spared = [p for p in peer.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": spared, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.95), fused=True)
    batch = random_inputs(config, BATCH)

    def step() -> float:
        loss = peer(torch.from_numpy(batch["imgs"]), noise=torch.from_numpy(batch["noise"])).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def mindcv(model: str, threads: int) -> Callable[[], Any]:
    """The same step of mindcv's model, as its training script has it: MindSpore's TrainOneStepCell in graph mode."""
    import mindspore as ms
    import numpy as np
    from mindcv.models.mae import MAEForPretrain

    from polymae.backends.runtime import load_backend
    from polymae.compare.record.inputs import random_inputs

    load_backend("mindspore").setup(threads=threads)
    ms.set_context(mode=ms.GRAPH_MODE)
    config = config_of(model)
    peer = MAEForPretrain(
        image_size=config.img_size[0],
        patch_size=config.patch_size,
        embed_dim=config.embed_dim,
        depth=config.depth,
        num_heads=config.num_heads,
        decoder_embed_dim=config.decoder_embed_dim,
        decoder_depth=config.decoder_depth,
        decoder_num_heads=config.decoder_num_heads,
        norm_pix_loss=False,
    ).set_train()
    decayed = [p for p in peer.trainable_params() if p.ndim > 1]
    spared = [p for p in peer.trainable_params() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": spared, "weight_decay": 0.0}]
    step = ms.nn.TrainOneStepCell(peer, ms.nn.AdamWeightDecay(groups, learning_rate=RATE, beta1=0.9, beta2=0.95))
    batch = random_inputs(config, BATCH)
    removed = np.argsort(np.argsort(batch["noise"], axis=1), axis=1) >= keep_length(config.num_patches, 0.75)
    return lambda: float(step(ms.Tensor(batch["imgs"]), ms.Tensor(removed)).asnumpy())


def product(threads: int) -> Callable[[], Any]:
    """A product of two matrices by PyTorch's library: what this machine can do at best."""
    import torch

    torch.set_num_threads(threads)
    a, b = torch.rand(SIDE, SIDE), torch.rand(SIDE, SIDE)
    return lambda: a @ b


def child(contender: str, model: str, threads: int) -> None:
    """Make a contender, then one step for each line that comes in; prints seconds, and the peak memory in MB."""
    if contender == PRODUCT:
        step = product(threads)
    else:
        others = {"transformers": transformers, "mindcv": mindcv}
        step = others[contender](model, threads) if contender in PEERS else ours(contender, model, threads)
    for _ in range(2):  # compiles, and allocates the moments
        step()
    print("ready", flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        passed = [time.perf_counter() - wall, time.process_time() - cpu]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps([*passed, peak]), flush=True)


class Contender:
    """A process that does a step on request."""

    def __init__(self, name: str, model: str, threads: int):
        # MindSpore's import leaves variables with which OneFlow cannot be imported.
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PROTOCOL_BUFFERS_")}
        framework = "torch" if name == PRODUCT else PEERS.get(name, name)
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--child", name, model, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=clean | variables(framework, clean) | thread_variables(threads),
        )
        while (line := self._line()) != "ready":
            if not line and self.process.poll() is not None:
                raise SystemExit(f"{name} ended with status {self.process.returncode}; run --child {name} {model} 1")

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def step(self) -> tuple[Step, float]:
        """A step's seconds, and the peak memory so far in MB."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self._line()
        while line and not line.startswith("["):  # a framework's lines
            line = self._line()
        wall, cpu, peak = json.loads(line)
        return Step(wall, cpu), peak

    def close(self) -> None:
        """End the process: OneFlow's may hang at its exit."""
        self.process.kill()
        self.process.wait()


def measured(model: str, names: Collection[str], threads: int, repetitions: int) -> dict[str, list[Step]]:
    """Each contender's steps, of rounds in which they take turns."""
    contenders: dict[str, Contender] = {}
    try:
        for name in names:
            contenders[name] = Contender(name, model, threads)
            print(f"{model}, {threads} threads: {name} is ready", file=sys.stderr)
        rounds = [{name: each.step()[0] for name, each in contenders.items()} for _ in range(repetitions)]
    finally:
        for each in contenders.values():
            each.close()
    return {name: [one[name] for one in rounds] for name in names}


def memory(model: str, name: str) -> float:
    """The peak memory of a process that does three steps, in MB."""
    contender = Contender(name, model, 1)
    try:
        return contender.step()[1]
    finally:
        contender.close()


def table(model: str, threads: int, steps: dict[str, list[Step]], peaks: dict[str, float]) -> list[str]:
    """Lines of Markdown for a model at a number of threads."""
    count = operations(config_of(model))
    fastest = {name: min(one.cost(threads) for one in taken) for name, taken in steps.items()}
    best = 2 * SIDE**3 / fastest[PRODUCT]
    head = (
        "", "fastest step, s", "median, s", "fastest, CPU s", "to PyTorch's", "to its peer's", "of the product's speed",
        "peak, MB",
    )  # fmt: skip
    lines = [
        f"## {model}, {threads} {'thread' if threads == 1 else 'threads'}",
        "",
        f"`-m {MODELS[model]}`, {count / 1e9:.1f} G operations in the matrix products of a step of {BATCH} images; "
        f"a matrix product of {SIDE} x {SIDE}: {best / 1e9:.0f} G operations a second.",
        "",
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
    ]
    peers = {framework: name for name, framework in PEERS.items()}
    for name, taken in steps.items():
        if name == PRODUCT:
            continue
        cells = [
            f"{name} ({PEERS[name]})" if name in PEERS else f"PolyMAE, {name}",
            f"{min(one.wall for one in taken):.3f}",
            f"{median(one.wall for one in taken):.3f}",
            f"{min(one.cpu for one in taken):.3f}",
            *(ratio(taken, steps.get(other), threads) for other in ("torch", peers.get(name, ""))),
            f"{count / fastest[name] / best:.2f}",
            f"{peaks[name]:.0f}" if name in peaks else "-",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def ratio(taken: list[Step], other: list[Step] | None, threads: int) -> str:
    """The median over the rounds of what a contender's step costs over what another's costs in the same round."""
    return f"{median(a.cost(threads) / b.cost(threads) for a, b in zip(taken, other)):.2f}" if other else "-"


def main() -> None:
    """Measure and print; write the page to --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", nargs=3, metavar=("CONTENDER", "MODEL", "THREADS"), help=argparse.SUPPRESS)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["small"])
    parser.add_argument("--frameworks", nargs="+", choices=FRAMEWORKS, default=list(FRAMEWORKS))
    parser.add_argument(
        "--base-frameworks", nargs="+", choices=FRAMEWORKS, default=["torch"], help="for the model base"
    )
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--out", type=Path, help="a Markdown file for the page")
    args = parser.parse_args()
    if args.child:
        child(args.child[0], args.child[1], int(args.child[2]))
        return
    from polymae.compare.record.environment import processor

    packages = ["torch", *PEERS, *(name for name in FRAMEWORKS if name != "torch")]
    versions = {name: version(name) for name in packages if installed(name)}
    lines = [
        "# How long a training step takes",
        "",
        f"Measured by `benchmarks/training.py` ({args.repetitions} rounds in which all take turns) on {processor()}, "
        f"{os.cpu_count()} cores, {platform.system()} {platform.release().split('-')[0]}, load "
        f"{os.getloadavg()[0]:.1f} at the start. Python {platform.python_version()}, "
        f"{', '.join(f'{name} {number}' for name, number in versions.items())}.",
        "",
        "A step is forward, backward and AdamW in float32 from a batch in NumPy, mask ratio 0.75; ours also computes the norm of "
        "all gradients. Ratios are medians over the rounds, at one thread of CPU seconds, at several of the time passed, as is "
        "the share of the matrix product's speed. The peer is another project's MAE in the same framework. The peak memory is a "
        "process's with all that it imports, at one thread.",
        "",
    ]
    absent = [name for name in (*args.frameworks, *PEERS) if not installed(name)]
    if absent:
        lines += [f"Not installed here: {', '.join(absent)}.", ""]
    for model in args.models:
        wanted = args.base_frameworks if model == "base" else args.frameworks
        peers = [name for name, framework in PEERS.items() if framework in wanted]
        names = [name for name in (*wanted, *peers) if name not in absent]
        peaks = {name: memory(model, name) for name in names}
        for threads in args.threads:
            steps = measured(model, [*names, PRODUCT], threads, args.repetitions)
            lines += table(model, threads, steps, peaks)
            print("\n".join(lines), flush=True)
            if args.out:
                args.out.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
