"""Terms that any GAN's losses may have beside the game and the gradient penalties, as pure functions."""

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

Parameters = Mapping[str, Tensor]


def orthogonal_penalty(weights: Iterable[Tensor]) -> Tensor:
    """Sum of squared inner products of different filters: ||W W^T (1 - I)||_F^2 over weights (n_out, ...).

    Unlike W W^T - I, it does not limit the filters' norms (Brock et al. 2018, BigGAN, arXiv:1809.11096, equation 3).
    """
    total = torch.zeros(())
    for weight in weights:
        filters = weight.flatten(1).float()  # (n_out, n_in)
        products = filters @ filters.T
        total = total.to(products.device) + (products - products.diagonal().diag()).square().sum()
    return total


def consistency(logits: Tensor, changed_logits: Tensor) -> Tensor:
    """E (D(x) - D(T(x)))^2 of samples and of the same samples after a change T that keeps their meaning.

    Of real samples in CR-GAN (Zhang et al. 2019, arXiv:1910.12027, equation 2), also of fake ones in bCR-GAN (Zhao et
    al. 2020, arXiv:2002.04724, algorithm 1).
    """
    return (logits - changed_logits).square().mean()


def path_lengths(images: Tensor, latents: Tensor) -> Tensor:
    """Norms of J^T y, (B,): how far images (B, *shape) move with their latents (B, D), in a random direction y.

    y is normal with variance 1 / (height * width), so that lengths do not grow with the resolution. Differentiable
    (Karras et al. 2019, StyleGAN2, arXiv:1912.04958, section 3.2).
    """
    direction = torch.randn_like(images) / math.sqrt(math.prod(images.shape[-2:]))
    (gradient,) = torch.autograd.grad((images * direction).sum(), latents, create_graph=True)
    return torch.linalg.vector_norm(gradient.flatten(1), dim=1)


def unrolled(loss: Callable[[Parameters], Tensor], parameters: Parameters, steps: int, lr: float) -> Parameters:
    """Parameters after so many gradient steps on a loss, as a differentiable function of all that the loss depends on.

    (Metz et al. 2016, arXiv:1611.02163, equation 7.)
    """
    for _ in range(steps):
        gradients = torch.autograd.grad(
            loss(parameters), [*parameters.values()], create_graph=True, materialize_grads=True
        )
        parameters = {name: p - lr * g for (name, p), g in zip(parameters.items(), gradients, strict=True)}
    return parameters
