"""A learned mean over the layers of a network."""

import torch
from torch import Tensor, nn


class LayerMix(nn.Module):
    """Layers (L, ..., D) -> scale * sum_l softmax(weights)_l layer_l (Peters et al. 2018, 1802.05365, equation 1).

    Both parameters belong to a task that reads the layers. They start as the plain mean, and do not ask for gradients
    until `requires_grad_()`.

    Args:
        n_layers: L.
    """

    def __init__(self, n_layers: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(n_layers), requires_grad=False)
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, layers: Tensor) -> Tensor:
        """Layers (L, ..., D) -> (..., D)."""
        return self.scale * torch.tensordot(self.weights.softmax(0), layers, dims=1)
