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
