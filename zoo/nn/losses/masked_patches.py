"""Squared errors of the hidden patches of images (He et al. 2021, arXiv:2111.06377)."""

import torch
from torch import Tensor

EPS = 1e-6  # added to the variance of a patch


def normalized_patches(patches: Tensor) -> Tensor:
    """Patches (B, T, P) less their means, over their standard deviations; a patch of one brightness becomes zero."""
    variance, mean = torch.var_mean(patches, -1, correction=0, keepdim=True)
    return (patches - mean) / (variance + EPS).sqrt()


def hidden_patch_error(prediction: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared error of the values of hidden patches, a scalar.

    Args:
        prediction: of all patches (B, T, P); those of visible patches have no effect.
        target: patches (B, T, P).
        hidden: bool (B, T), with at least one True.
    """
    error = (prediction - target).square().mean(-1)  # (B, T)
    return (error * hidden).sum() / hidden.sum()
