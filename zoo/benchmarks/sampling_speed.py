"""How fast a model draws: `zoo bench --sampling`."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from omegaconf import DictConfig

from zoo.models.abilities import SupportsLatents, SupportsPrior, supports
from zoo.models.adversarial.gan import GAN
from zoo.models.autoregressive.base import LanguageModelBase
from zoo.models.base import GenerativeModel
from zoo.training.train import build_data, build_model

PLACES = 9  # lengths at which a full pass is timed


@torch.no_grad()
def sampling_speed(cfg: DictConfig, seconds: float) -> dict[str, Any]:
    """Samples a second in the recipe's own batches, and what they are held against.

    An autoregressive model against itself without a cache, which reads everything anew for each token: a full pass is
    timed at evenly spaced lengths, and summed over all lengths by the trapezoid rule. A decoder against its own
    speed, without the noise and the labels. The weights are untrained, which makes no difference to the time.
    """
    data = build_data(cfg)
    torch.manual_seed(cfg.seed)
    model, n = build_model(cfg, data).eval(), int(cfg.data.batch_size)
    spent = timed(lambda: model.sample(n), seconds)
    row = {"model": cfg.model.name, "data": data.spec.name, "batch": n, "per_second": n / spent, "ms": 1e3 * spent}
    if isinstance(model, LanguageModelBase):
        steps = model.net.context
        row |= {"tokens_per_second": n * steps / spent, "speed_up": uncached(model, n, seconds) / spent}
    elif (decoder := decoder_only(model, n)) is not None:
        row["of_decoder"] = timed(decoder, seconds) / spent
    return row


def uncached(model: LanguageModelBase, n: int, seconds: float) -> float:
    """Seconds to draw n sequences by a full pass for every token."""
    lengths = torch.linspace(1, model.net.context, PLACES).long().tolist()
    each = [timed(lambda t=t: model.net(torch.zeros(n, t, dtype=torch.long)), seconds / PLACES) for t in lengths]  # type: ignore[misc]
    return float(torch.trapezoid(torch.tensor(each), torch.tensor(lengths, dtype=torch.float))) + each[0]


def decoder_only(model: GenerativeModel, n: int) -> Callable[[], Any] | None:
    """One pass of the decoder on latents that are there already."""
    if isinstance(model, GAN):
        z, y = torch.randn(n, model.latent_dim), torch.zeros(n, dtype=torch.long)
        return lambda: model.average(z, y)
    if supports(model, SupportsLatents) and supports(model, SupportsPrior) and not model.conditional:
        z = model.draw_latents(n)
        return lambda: model.decode(z)
    return None


def timed(work: Callable[[], Any], seconds: float) -> float:
    """Seconds that it takes: the least of those runs that fit into the time, at least two, the first not counted."""
    work()
    best, end = float("inf"), time.perf_counter() + seconds
    while True:
        begun = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begun)
        if time.perf_counter() > end:
            return best


HEADINGS: Sequence[tuple[str, str, str]] = (
    ("model", "model", "{}"),
    ("data", "data", "{}"),
    ("batch", "batch", "{:,}"),
    ("per_second", "samples per s", "{:,.1f}"),
    ("ms", "ms a batch", "{:,.1f}"),
    ("tokens_per_second", "tokens per s", "{:,.0f}"),
    ("speed_up", "times as fast as without a cache", "{:,.1f}"),
    ("of_decoder", "of the decoder's own speed", "{:.1%}"),
)
