"""Tables of metrics on the console."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from zoo.evaluation.context import Metric
from zoo.evaluation.evaluate import Evaluation
from zoo.evaluation.report import report


@pytest.mark.parametrize("measured", [True, False])
def test_an_empty_table_is_explained(measured: bool) -> None:
    scores = {"psnr@5_test": Metric(3.0, "higher")} if measured else {}
    facts = {"data": {"name": "digits"}, "protocol": {"split": "test"}, "features": {}}
    console = Console(file=io.StringIO(), width=100)
    report([Evaluation(Path("run/last.ckpt"), facts, scores)], console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert ("no metric applies" in shown) is not measured
    assert ("psnr@5_test" in shown) is measured


def test_numbers_stay_whole_in_a_narrow_terminal() -> None:
    name = "recognised_shuffled_speaker_spoken_digits@300_test_speakers"
    scores = {name: Metric(0.1511, "higher", error=0.0151, real_data_reference=0.1644)}
    facts = {"data": {"name": "digits"}, "protocol": {"split": "test"}, "features": {}}
    console = Console(file=io.StringIO(), width=60)
    report([Evaluation(Path("run/last.ckpt"), facts, scores)], console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "0.1511 ± 0.015" in shown
    assert max(map(len, shown.splitlines())) <= 60
