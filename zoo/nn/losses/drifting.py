"""The drifting field: generated samples move towards data and away from each other (Deng et al. 2026, 2602.04770)."""

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def drifting_field(x: Tensor, attracting: Tensor, repelling: Tensor, allowed: Tensor, temperature: float) -> Tensor:
    """V(x), (N, D): sum over p and q of A(x, p) A(x, q) (p - q), for attracting p and repelling q.

    A is the root of two softmaxes of minus the distance over the temperature: one over all p and q, one over all x. V
    changes its sign if p and q are exchanged. It is zero if both are one set.

    Args:
        x: points (N, D).
        attracting: (M, D), data.
        repelling: (K, D), generated samples.
        allowed: (N, M + K), False for pairs without a force.
        temperature: in the units of the distances.
    """
    others = torch.cat([attracting, repelling])  # (M + K, D)
    logits = (torch.cdist(x, others) / -temperature).masked_fill(~allowed, -torch.inf)
    affinity = torch.where(allowed, (logits.softmax(1) * logits.softmax(0)).sqrt(), 0.0)  # (N, M + K)
    to, away = affinity.split([len(attracting), len(repelling)], dim=1)
    weight = torch.cat([to * away.sum(1, keepdim=True), -away * to.sum(1, keepdim=True)], 1)  # rows sum to zero
    return weight @ others


def class_means(values: Tensor, y: Tensor, n_classes: int) -> Tensor:
    """The mean over the rows of the same class, for each row: (N,), labels (N,) -> (N,)."""
    one_hot = torch.nn.functional.one_hot(y, n_classes).to(values)  # (N, C)
    return one_hot @ ((one_hot.T @ values) / one_hot.sum(0).clamp(min=1))


def drifting_loss(
    generated: Tensor, y: Tensor, data: Tensor, y_data: Tensor, n_classes: int, temperatures: Sequence[float]
) -> Tensor:
    """Squared distance per value of generated samples to where they drift, (N,); its gradient is -2 V / D.

    Per class, distances are scaled to a mean of one, and the field of each temperature to a mean square of one. The
    loss is about constant for that reason, and does not measure quality.

    Args:
        generated: (N, D).
        y: its classes (N,).
        data: (M, D).
        y_data: its classes (M,).
        n_classes: number of classes.
        temperatures: widths of the kernels, as shares of the mean distance.
    """
    with torch.no_grad(), torch.autocast(generated.device.type, enabled=False):
        same = y[:, None] == torch.cat([y_data, y])  # (N, M + N)
        same[:, len(data) :].fill_diagonal_(False)
        distances = torch.cdist(generated, torch.cat([data, generated])) * same
        total, number = (class_means(v, y, n_classes) for v in (distances.sum(1), same.sum(1).to(distances)))
        scale = (total / number.clamp(min=1)).clamp(min=1e-6)[:, None]  # (N, 1)
        of_data = torch.zeros(n_classes, device=y.device).to(scale).index_copy(0, y, scale[:, 0])[y_data][:, None]
        x, p = generated / scale, data / of_data.clamp(min=1e-6)
        drift = torch.zeros_like(x)
        for temperature in temperatures:
            field = drifting_field(x, p, x, same, temperature)
            drift += field / class_means(field.square().mean(1), y, n_classes).clamp(min=1e-12).sqrt()[:, None]
    size = generated.shape[1] ** 0.5
    scaled = generated * (size / scale)  # distances are about sqrt(D)
    return (scaled - (scaled + drift).detach()).square().mean(1)
