"""A learned noise schedule: which noise levels training visits, chosen for the least variance of the bound."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.nn.diffusion.path import Path


@register("times", "learned")
class LearnedSchedule(nn.Module):
    """The log-SNR as a learned, monotone function of a uniform number (Kingma et al. 2021, arXiv:2107.00630, 5.1).

    In continuous time, the expected bound depends on the end points alone. The shape decides its variance, so it is
    trained to lower E[loss^2]. One backward pass serves network and schedule: the gradient of a sample's loss with
    respect to its noise level is multiplied by twice the loss. Use it with weighting=elbo.

    Args:
        low: smallest log-SNR.
        high: largest log-SNR.
        width: number of sigmoids in the monotone function.
    """

    def __init__(self, *, low: float = -10.0, high: float = 8.0, width: PositiveInt = 32) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.linear = nn.Parameter(torch.zeros(()))
        self.heights = nn.Parameter(torch.full((width,), -6.0))  # before the softplus: almost a straight line
        self.slopes = nn.Parameter(torch.full((width,), 10.0))
        self.centres = nn.Parameter(torch.linspace(0, 1, width))
        self.losses: list[Tensor] = []  # of the last draw, (B,), once they are known

    def shape(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """A rising function from [0, 1] onto itself, and its derivative, each (B,)."""
        height, slope = F.softplus(self.heights), F.softplus(self.slopes)
        grid = torch.cat([u, torch.arange(2, device=u.device).to(u)])
        steps = torch.sigmoid(slope * (grid[:, None] - self.centres))  # (B + 2, width)
        value = F.softplus(self.linear) * grid + (height * steps).sum(1)
        rise = F.softplus(self.linear) + (height * slope * steps * (1 - steps)).sum(1)
        length = value[-1] - value[-2]
        return (value[:-2] - value[-2]) / length, rise[:-2] / length

    def log_snr(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The log-SNR, falling from `high` to `low`, and minus its derivative, each (B,), for u (B,) in (0, 1)."""
        value, rise = self.shape(u)
        return self.high + (self.low - self.high) * value, (self.high - self.low) * rise

    def draw(self, u: Tensor, path: Path) -> tuple[Tensor, Tensor]:
        """See `zoo.nn.diffusion.times.Times`; the gradient at the level and its rate is that of the squared loss."""
        log_snr, rate = self.log_snr(u)
        losses: list[Tensor] = []
        self.losses = losses

        def of_squares(gradient: Tensor) -> Tensor:  # of a mean of losses -> of the mean of their squares
            return 2 * losses[0] * gradient if losses else torch.zeros_like(gradient)

        if rate.requires_grad:
            log_snr.register_hook(of_squares)
            rate.register_hook(of_squares)
        t = path.time_of(log_snr)
        point = path.at(t)
        return t, 2 * point.wronskian / (point.a * point.s) / rate

    def observe(self, losses: Tensor) -> None:
        """See `Times`; without it, the schedule is not trained by the draw."""
        self.losses.append(losses.detach())
