"""Killed runs go on; the full table is `python -m tests.fault_injection.kill --times 50`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("times", [3, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_kills_lose_no_more_than_the_interval(times: int) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.fault_injection.kill",
        "--times",
        str(times),
        *(["--models", "ae"] * (times < 50)),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["kills"] == times
    assert told["equal"] == told["runs_ended"] > 0
    assert told["worst_loss"] <= told["interval"]
    assert told["doubled"] == 0
