"""Progress bar with remaining time and metrics; plain lines without a terminal."""

import itertools
import time
from statistics import median
from typing import Any

import pytorch_lightning as L
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from zoo.models.base import Model

REFRESH = 0.25  # seconds between two updates of the bar
SKIPPED, TIMED = 5, 20  # batches that warm up, and the batches after them that the estimate is made from
STALL = 5  # times the median: a batch counts for no more, because another program or an import may have delayed it


class ProgressBar(L.callbacks.ProgressBar):
    """Shows batches of the whole training, the model's first chart, and its monitored metric.

    Args:
        max_steps: total number of batches.
        console: receives the output.
    """

    def __init__(self, max_steps: int, console: Console) -> None:
        super().__init__()
        self.max_steps, self.console = max_steps, console
        self.bar: Progress | None = None
        self.started, self.moved = time.perf_counter(), 0.0
        self.lines = max(max_steps // 10, 1)  # without a terminal: one line each tenth
        self.seen, self.ends = 0, list[float]()  # batches since the start, and when those of the estimate ended

    def disable(self) -> None:
        """Print nothing; Lightning calls this in all processes except the first."""
        self.console = Console(quiet=True)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start at the first batch of this training."""
        super().on_train_start(trainer, pl_module)
        assert isinstance(pl_module, Model)
        self.started = time.perf_counter()
        if not self.console.is_terminal:
            return
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=self.console,
            refresh_per_second=1 / REFRESH,
        )
        self.bar.add_task(
            "training",
            total=self.max_steps,
            completed=trainer.fit_loop.epoch_loop.total_batch_idx + 1,
            numbers="",
        )
        self.bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance; numbers are read on few batches only, because reading synchronises."""
        assert isinstance(pl_module, Model)
        done = pl_module.step + 1
        self.estimate(done)
        if self.bar is not None:
            if pl_module.is_logging_step:
                self.bar.update(self.bar.task_ids[0], completed=done, numbers=self.numbers(trainer, pl_module))
            elif (now := time.perf_counter()) - self.moved > REFRESH:
                self.bar.update(self.bar.task_ids[0], completed=done)
                self.moved = now
        elif not self.console.quiet and done % self.lines == 0:
            seconds = time.perf_counter() - self.started
            self.console.print(
                f"batch {done:>6}/{self.max_steps}  {seconds:5.0f} s  {self.numbers(trainer, pl_module)}",
                highlight=False,
            )

    def estimate(self, done: int) -> None:
        """Print once how long the training takes, without validations."""
        self.seen += 1
        if SKIPPED <= self.seen <= SKIPPED + TIMED:
            self.ends.append(time.perf_counter())
        if self.seen == SKIPPED + TIMED:
            seconds = [end - begin for begin, end in itertools.pairwise(self.ends)]
            most = STALL * median(seconds)
            each = sum(min(one, most) for one in seconds) / TIMED
            rest = each * (self.max_steps - done)
            if rest >= 1:
                left = f"about {format_duration(rest)} left, at {each:.3g} s a batch"
                self.console.print(f"[bold]time    [/bold] {left}, without validations", highlight=False)

    def numbers(self, trainer: L.Trainer, module: Model) -> str:
        """Format metrics: `loss_d 1.23  loss_g 0.81  val/fd 0.04`."""
        first = next(iter(module.charts().values()), [])
        now = {f"train/{name}": value for name, value in module.last_logged.items()}  # also between logged batches
        known = {**trainer.callback_metrics, **now}
        tags = dict.fromkeys([*first, module.monitor])
        return "  ".join(f"{t.removeprefix('train/')} {known[t].item():.4g}" for t in tags if t in known)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Complete the bar."""
        assert isinstance(pl_module, Model)
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=pl_module.step + 1)
        self.close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Release the terminal."""
        self.close()

    def close(self) -> None:
        """Stop drawing."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def format_duration(seconds: float) -> str:
    """`40 s`, `14 min` or `2.3 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
