"""Schedules of the learning rate."""

import math
from typing import Literal

Schedule = Literal["constant", "linear", "cosine", "wsd"]


def lr_factor(
    step: int, total: int, schedule: str = "constant", warmup: int = 0, floor: float = 0.0, decay: float = 0.2
) -> float:
    """Factor on a learning rate at a batch: linear warm-up from zero, then the schedule, which ends at `floor`.

    Args:
        step: batches done.
        total: batches in all.
        schedule: "constant", "linear", "cosine", or "wsd": warm-up, stable, linear decay (Hu et al. 2024, 2404.06395).
        warmup: batches of warm-up.
        floor: the factor at the end; unused by "constant".
        decay: share of the training that the decay of "wsd" takes.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    start = max(total - decay * total, warmup) if schedule == "wsd" else warmup
    done = min(max(step - start, 0) / max(total - start, 1), 1.0)
    if schedule == "cosine":
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))
    return 1.0 if schedule == "constant" else floor + (1 - floor) * (1 - done)
