"""Squared Frobenius norm of the Jacobian of a network, as a penalty."""

from collections.abc import Callable

import torch
from torch import Tensor


def jacobian_norm(function: Callable[[Tensor], Tensor], x: Tensor, num_probes: int) -> Tensor:
    """Squared Frobenius norm of d function / d x of each sample, (B,), differentiable in the function's weights.

    Each vector v gives the row v'J of every sample by one backward pass. Random signs give an unbiased estimate,
    E |v'J|^2 (Hutchinson 1990). Works inside Lightning's inference mode too.

    Args:
        function: of samples (B, ...), row by row, to outputs (B, ...).
        x: samples (B, ...); gradients do not flow into them.
        num_probes: random sign vectors; 0 takes all unit vectors, which is exact.
    """
    trained = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        z = function(x)
        if num_probes:
            signs = torch.randint(0, 2, (num_probes, *z.shape), device=z.device)
            vectors = (2 * signs - 1).to(z.dtype)
        else:
            units = torch.eye(z[0].numel(), device=z.device, dtype=z.dtype).view(-1, 1, *z.shape[1:])
            vectors = units.expand(-1, *z.shape)
        norm = x.new_zeros(len(x))
        for v in vectors:
            (row,) = torch.autograd.grad(z, x, v, create_graph=trained, retain_graph=True)
            norm = norm + row.square().flatten(1).sum(1)
    return norm / (num_probes or 1)
