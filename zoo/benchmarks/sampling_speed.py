"""Sampling speed of a model: `zoo bench --sampling`."""

import time
from collections.abc import Callable
from typing import Any

import torch
from omegaconf import DictConfig

from zoo.models.abilities import SupportsExport, SupportsTokenSampling
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.training.train import build_data, build_model

N_LENGTHS = 9  # number of sequence lengths to time


@torch.no_grad()
def sampling_speed(cfg: DictConfig, seconds: float) -> dict[str, Any]:
    """Samples per second with the recipe's batch size, and a reference.

    The reference of an autoregressive model is itself without a cache. Full passes are timed at evenly spaced lengths
    and integrated by the trapezoid rule. The reference of other models is their decoder alone, without random number
    generation. Weights are untrained, which does not affect the time.
    """
    data = build_data(cfg)
    torch.manual_seed(cfg.seed)
    model, n = build_model(cfg, data).eval(), int(cfg.data.batch_size)
    elapsed = timed(lambda: model.sample(n), seconds)
    row = {"model": cfg.model.name, "data": data.spec.name, "batch": n, "per_second": n / elapsed, "ms": 1e3 * elapsed}
    if supports(model, SupportsTokenSampling):
        row |= {"tokens_per_second": n * model.context / elapsed}
        row |= {"speed_up": time_without_cache(model, n, seconds) / elapsed}
    elif (decoder := decoder_only(model, n)) is not None:
        row["of_decoder"] = timed(decoder, seconds) / elapsed
    return row


def time_without_cache(model: Any, n: int, seconds: float) -> float:
    """Seconds to sample n sequences with a full pass per token."""
    lengths = torch.linspace(1, model.context, N_LENGTHS).long().tolist()
    each = [timed(lambda t=t: model.net(torch.zeros(n, t, dtype=torch.long)), seconds / N_LENGTHS) for t in lengths]  # type: ignore[misc]
    return float(torch.trapezoid(torch.tensor(each), torch.tensor(lengths, dtype=torch.float))) + each[0]


def decoder_only(model: Model, n: int) -> Callable[[], Any] | None:
    """The deterministic part of the sampler on fixed random inputs; None if the model does not have one."""
    if not supports(model, SupportsExport):
        return None
    core = model.export_module().eval()
    inputs = core.draw(n)
    return lambda: core(*inputs)


def timed(work: Callable[[], Any], seconds: float) -> float:
    """Minimum seconds of the runs that fit into the time: at least two, after one warm-up run."""
    work()
    best, end = float("inf"), time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
        if time.perf_counter() > end:
            return best
