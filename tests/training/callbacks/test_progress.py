"""The estimated duration, printed once in the first batches of a run."""

import io

from rich.console import Console

from zoo.training.callbacks import progress


def test_the_estimate_is_printed_once_and_counts_the_batches_left(monkeypatch):
    out, clock = io.StringIO(), iter(range(1000))
    monkeypatch.setattr(progress.time, "perf_counter", lambda: 2.0 * next(clock))  # two seconds per call
    bar = progress.ProgressBar(1000, Console(file=out, width=200))
    for done in range(1, 101):
        bar.estimate(done)
    assert out.getvalue().count("left") == 1
    each, at = 2.0 / progress.TIMED, progress.SKIPPED + progress.TIMED
    assert f"about {progress.format_duration(each * (1000 - at))} left" in out.getvalue()


def test_durations_have_a_readable_unit():
    assert [progress.format_duration(s) for s in (7.2, 99, 840, 7200)] == ["7 s", "99 s", "14 min", "2.0 h"]
