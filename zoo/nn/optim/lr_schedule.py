"""How numbers move over a training."""

import math


def lr_factor(step: int, total: int, schedule: str = "constant", warmup: int = 0, floor: float = 0.0) -> float:
    """Factor on a learning rate at a batch: linear warm-up from zero, then constant, or down to `floor`.

    Args:
        step: batches done.
        total: batches in all.
        schedule: "constant", "linear" or "cosine".
        warmup: batches of warm-up.
        floor: the factor at the end.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = min((step - warmup) / max(total - warmup, 1), 1.0)
    if schedule == "cosine":
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))
    return floor + (1 - floor) * (1 - done) if schedule == "linear" else 1.0
