"""Gaussian diffusion in T steps: q(z_t | x) = N(sqrt(a_t) x, 1 - a_t), with a_0 = 1 and a_T = 0.

The steps are those of DDPM (Ho et al. 2020, arXiv:2006.11239). `Transition.kept` gives a_t. For s < t, the step back is
p(z_s | z_t) = N(mean of q(z_s | z_t, estimate), 1 - a_t / a_s): the larger of the paper's two variances, which is exact
for standard normal data. The smaller one, of q, is exact for known data.
"""

import torch
from torch import Tensor


def scales(kept: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Signal sqrt(a) and noise sqrt(1 - a), each (B, 1) in the type of `like`, from shares a (B,)."""
    return kept.sqrt().to(like)[:, None], (1 - kept).sqrt().to(like)[:, None]


def posterior(z: Tensor, x: Tensor, earlier: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, M) and standard deviation (B, 1) of q(z_s | z_t, x) (Ho et al. 2020, equation 7).

    Args:
        z: z_t, (B, M).
        x: data (B, M).
        earlier: a_s, (B,), float64.
        kept: a_t, (B,), float64.
    """
    ratio = kept / earlier  # of the signal's variance from s to t
    of_z, of_x = ratio.sqrt() * (1 - earlier) / (1 - kept), earlier.sqrt() * (1 - ratio) / (1 - kept)
    std = ((1 - earlier) / (1 - kept) * (1 - ratio)).sqrt()
    return of_z.to(z)[:, None] * z + of_x.to(z)[:, None] * x, std.to(z)[:, None]


def step_back(z: Tensor, estimate: Tensor, earlier: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, M) and standard deviation (B, 1) of p(z_s | z_t), from an estimate of the data; see `posterior`."""
    mean, _ = posterior(z, estimate, earlier, kept)
    return mean, (1 - kept / earlier).sqrt().to(z)[:, None]


def bound_term(x: Tensor, estimate: Tensor, earlier: Tensor, kept: Tensor) -> Tensor:
    """KL(q(z_s | z_t, x) || p(z_s | z_t)), nats (B, M); z_t cancels.

    Args:
        x: data (B, M).
        estimate: of the data (B, M).
        earlier: a_s < 1, (B,), float64.
        kept: a_t, (B,), float64.
    """
    share = (1 - earlier) / (1 - kept)  # of the two variances
    weight = earlier * (1 - kept / earlier) / (1 - kept).square()
    apart = weight.to(x)[:, None] * torch.square(x - estimate)
    return 0.5 * (apart + (share - 1 - share.log()).to(x)[:, None])
