"""Averages of weights with a power-function profile, and any other such average from stored ones (EDM2).

Karras et al. 2023, arXiv:2312.02696, section 3 and appendix C. After t samples, weights of the time tau have the weight
p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1). The relative standard deviation of this profile describes its width.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

Profile = tuple[float, float]  # gamma, and the time t of the average


def exponent(std: float) -> float:
    """gamma of the profile whose standard deviation is `std`, relative to its length; below 1 / sqrt(12).

    The deviation is std^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)), and gamma the largest root of this cubic.
    """
    roots = np.roots([1, 7, 16 - std**-2, 12 - std**-2])
    return float(roots.real.max())


def decay(gamma: float, seen: float, samples: float) -> float:
    """Factor on the average after `samples` more, of `seen` in total: (1 - samples / seen)^(gamma + 1)."""
    return (1 - samples / seen) ** (gamma + 1)


def inner_product(one: Profile, two: Profile) -> float:
    """Integral of the product of two profiles, times the longer time to be without a unit."""
    (a, s), (b, t) = one, two
    if s > t:
        return inner_product(two, one)
    return (a + 1) * (b + 1) / (a + b + 1) * (s / t) ** b


def weights(stored: Sequence[Profile], wanted: Profile) -> list[float]:
    """Weights of stored averages, with sum one, whose profile has the least squared distance to the wanted one."""
    longest = max(t for _, t in stored)

    def product(one: Profile, two: Profile) -> float:  # of the integrals, in units of the longest time
        return inner_product(one, two) * longest / max(one[1], two[1])

    n = len(stored)
    system = np.ones((n + 1, n + 1))  # the last row and column are those of the constraint
    system[:n, :n] = [[product(one, two) for two in stored] for one in stored]
    system[n, n] = 0.0
    right = np.array([*(product(one, wanted) for one in stored), 1.0])
    return np.linalg.lstsq(system, right, rcond=1e-12)[0][:n].tolist()


@torch.no_grad()
def combine(states: Sequence[Mapping[str, Tensor]], factors: Sequence[float]) -> dict[str, Tensor]:
    """Weighted sum of weights by name, in double precision; values that are not real come from the last."""
    total: dict[str, Tensor] = {}
    for state, factor in zip(states, factors, strict=True):
        for name, value in state.items():
            if value.is_floating_point():
                total[name] = total.get(name, 0.0) + factor * value.double()
            else:
                total[name] = value
    return {name: value.to(states[-1][name].dtype) for name, value in total.items()}
