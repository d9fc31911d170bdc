"""What a run shows while it goes on: progress, log.txt, TensorBoard, reconstructions, nearest neighbours."""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from . import run
from .memory import peak_memory
from .steps import Taken

if TYPE_CHECKING:
    from ..data.loader import Loader
    from .loop import _Run

_EVERY = 30.0  # seconds between two lines of progress where there is no terminal


class Watcher:
    """Follows a run. A context manager; everything that it writes is in the run's folder.

    loss: of the last step. epoch_loss: mean of the last whole epoch. score: of the last epoch, where it was measured.
    """

    def __init__(self, of: _Run, show: bool):
        self.of, self.show = of, show
        self.loss: float | None = None
        self.epoch_loss: float | None = None
        self.score: float | None = None
        self.log = run.Lines(of.request.out / run.LOG)
        self.progress = Progress(of.request.framework, of.end) if show else None
        self.board = _board(of.request.out / run.BOARD, of.step, of.recipe.watching.tensorboard, show)
        self.losses: list[float] = []
        self.rates: list[float] = []
        for line in run.read_lines(of.request.out / run.STEPS):
            if line["epoch"] == of.step // of.per_epoch:  # of the epoch that is gone on with
                self.losses.append(line["loss"])
                self.rates.append(line["lr"])

    def __enter__(self) -> Watcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.log.close()
        if self.board is not None:
            self.board.close()
        if self.progress is not None:
            self.progress.close()

    def begin(self, loader: Loader) -> None:
        """The loop begins, with its batches from a loader."""
        self.loader, self.began = loader, perf_counter()
        self.waited, self.images = 0.0, 0

    def after_step(self, epoch: int, taken: Taken, lr: float) -> None:
        """A step was made."""
        of = self.of
        self.loss = taken.loss
        self.losses.append(taken.loss)
        self.rates.append(lr)
        self.images += of.recipe.batch.batch_size
        if self.board is not None:
            x = int(1000 * of.step / of.per_epoch)  # of an epoch, in thousandths, as upstream
            self.board.add_scalar(of.task.loss_tag, taken.loss, x)
            self.board.add_scalar(of.task.lr_tag, lr, x)
        if self.progress is not None:
            self.progress.after_step(of.step, taken.loss, lr, self.speed, self.share_waited)

    @property
    def speed(self) -> float:
        """Images a second since the epoch, or the process, began."""
        return self.images / max(perf_counter() - self.began, 1e-9)

    @property
    def share_waited(self) -> float:
        """The share of that time in which training waited for data."""
        return (self.loader.waited - self.waited) / max(perf_counter() - self.began, 1e-9)

    def after_epoch(self, epoch: int) -> None:
        """An epoch was finished: a line in log.txt, and what is looked at after some epochs."""
        of = self.of
        line: dict[str, Any] = {
            "train_lr": float(np.mean(self.rates)), "train_loss": float(np.mean(self.losses)), "epoch": epoch,
            "images_per_second": round(self.speed, 1), "waiting_for_data": round(self.share_waited, 4),
            "memory": peak_memory(),
        }  # fmt: skip
        self.epoch_loss = line["train_loss"]
        if broken := of.batches.broken:
            line["broken_images"] = len(broken)
            (of.request.out / run.BROKEN).write_text(
                "".join(f"{name}: {why}\n" for name, why in sorted(broken.items()))
            )
        looked = of.task.look(of.runtime, of.model, epoch, epoch + 1 == of.recipe.schedule.epochs, of.average)
        self.score = looked.score
        if looked.picture is not None:
            path = of.request.out / run.PICTURES / f"epoch-{epoch + 1}.png"
            path.parent.mkdir(exist_ok=True)
            looked.picture.save(path)
        line |= looked.line
        self.log.add(line)
        if self.board is not None:
            for tag, value in looked.scalars.items():
                self.board.add_scalar(tag, value, epoch + 1)
            if looked.picture is not None:
                self.board.add_image("reconstruction", np.asarray(looked.picture), epoch + 1, dataformats="HWC")
        if self.progress is not None:
            self.progress.after_epoch(line)
        self.losses, self.rates = [], []
        self.began, self.waited, self.images = perf_counter(), self.loader.waited, 0


def _board(folder: Path, step: int, wanted: bool, show: bool) -> Any:
    """TensorBoard's writer; None where it is not wanted or not installed."""
    if not wanted:
        return None
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        if show:
            print("tensorboardX is not installed: no TensorBoard files (pip install tensorboardX).", file=sys.stderr)
        return None
    return SummaryWriter(str(folder), purge_step=step or None)


class Progress:
    """On stderr: a bar in a terminal, else a line every half minute; a line for each epoch."""

    def __init__(self, framework: str, total: int):
        self.framework, self.total, self.bar = framework, total, None
        self.last = perf_counter()
        if sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            columns = (
                progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn(),
                progress.TimeElapsedColumn(), progress.TimeRemainingColumn(),
            )  # fmt: skip
            self.bar = progress.Progress(*columns, console=Console(stderr=True), transient=True)
            self.task = self.bar.add_task(framework, total=total)
            self.bar.start()

    def after_step(self, step: int, loss: float, lr: float, speed: float, waited: float) -> None:
        """A step was made."""
        words = (
            f"{self.framework}  loss {loss:.4f}  lr {lr:.2e}  {speed:,.0f} images/s  waiting {waited:.0%}  "
            f"{peak_memory() / 1e9:.1f} GB"
        )
        if self.bar is not None:
            self.bar.update(self.task, completed=step, description=words)
        elif perf_counter() - self.last > _EVERY:
            self.last = perf_counter()
            print(f"step {step} of {self.total}  {words}", file=sys.stderr, flush=True)

    def after_epoch(self, line: dict[str, Any]) -> None:
        """An epoch was finished."""
        text = f"epoch {line['epoch'] + 1}  loss {line['train_loss']:.4f}  lr {line['train_lr']:.2e}"
        text += f"  {line['images_per_second']:,.0f} images/s  waiting {line['waiting_for_data']:.1%}"
        if "broken_images" in line:
            text += f"  {line['broken_images']} broken images were replaced"
        if "knn_top1" in line:
            text += f"  kNN {line['knn_top1']:.1f} %"
        for name, word in (("test_acc1", "top-1"), ("test_ema_acc1", "of the average")):
            if name in line:
                text += f"  {word} {line[name]:.2f} %"
        if self.bar is not None:
            self.bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self.bar is not None:
            self.bar.stop()
