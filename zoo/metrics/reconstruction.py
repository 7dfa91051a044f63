"""Reconstruction error: MSE, PSNR and SSIM."""

import math
from typing import Any

import torch
from torch import Tensor

CHUNK_SIZE = 256  # images


def reconstruction(x: Tensor, reconstructed: Tensor) -> dict[str, float]:
    """Mean squared error per value; for images (B, C, H, W) in [0, 1] also PSNR and SSIM.

    - mse: over all values of all samples;
    - psnr: 10 log10(1 / mse) of that mean, in dB, infinite for identity; the mean over images is higher;
    - ssim: structural similarity (Wang et al. 2004, equation 13), averaged over pixels, channels and images: 1 for
      identity.

    The window is Gaussian with standard deviation 1.5 on 11x11 pixels, as in Wang et al., and narrower for sides below
    6. Images are padded by reflection instead of cropped, so 8x8 digits fit. Compare values at equal image sizes.
    """
    mse = float((x.double() - reconstructed.double()).square().mean())
    if x.dim() != 4:
        return {"mse": mse}
    return {"mse": mse, "psnr": -10 * math.log10(mse) if mse else math.inf, "ssim": _ssim(x, reconstructed)}


def _ssim(x: Tensor, reconstructed: Tensor) -> float:
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    sigma = min(1.5, (min(x.shape[2:]) - 0.6) / 3.6)  # window radius int(3.5 sigma + 0.5) below the side
    scores: list[Any] = [  # each (CHUNK_SIZE,)
        ssim(b.double(), a.double(), sigma=sigma, reduction="none", data_range=1.0)
        for a, b in zip(x.split(CHUNK_SIZE), reconstructed.split(CHUNK_SIZE), strict=True)
    ]
    return float(torch.cat(scores).mean())
