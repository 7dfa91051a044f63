"""The estimated duration, printed once in the first batches of a run."""

import io
import itertools

from rich.console import Console

import zoo
from zoo.training.callbacks import progress


def test_every_line_of_a_short_run_has_the_loss(tmp_path, capsys):
    """Also a run of fewer batches than `log_every_n_steps`."""
    zoo.fit("gan", "ring8", max_steps=4, folder=tmp_path / "run", val_check_interval=4)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("batch ") and "/4 " in line]
    assert len(lines) == 4
    assert all("loss_d " in line and "loss_g " in line for line in lines)


def estimated(monkeypatch, lengths):
    """Output of a run of 1,000 batches whose first ones take so many seconds."""
    out, ends = io.StringIO(), itertools.accumulate(lengths)
    bar = progress.ProgressBar(1000, Console(file=out, width=200))
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(ends))
    for done in range(1, 101):
        bar.estimate(done)
    assert out.getvalue().count("left") == 1
    return out.getvalue()


def shown(each):
    at = progress.SKIPPED + progress.TIMED
    return f"about {progress.format_duration(each * (1000 - at))} left, at {each:.3g} s a batch"


def test_the_estimate_is_printed_once_and_counts_the_batches_left(monkeypatch):
    assert shown(2.0) in estimated(monkeypatch, itertools.repeat(2.0))


def test_a_stall_does_not_spoil_the_estimate(monkeypatch):
    """Ten seconds of another program in one batch count for five batches, and slow steps of a player in full."""
    stalled = [0.03] * 12 + [10.0] + [0.03] * 100
    assert shown(0.03 * (19 + progress.STALL) / 20) in estimated(monkeypatch, stalled)
    every_fifth = itertools.cycle([0.1, 0.1, 0.1, 0.1, 0.3])
    assert shown(0.14) in estimated(monkeypatch, every_fifth)


def test_durations_have_a_readable_unit():
    assert [progress.format_duration(s) for s in (7.2, 99, 840, 7200)] == ["7 s", "99 s", "14 min", "2.0 h"]
