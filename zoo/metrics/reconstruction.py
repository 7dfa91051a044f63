"""How well a model gives back what it was given."""

import math
from typing import Any

import torch
from torch import Tensor

ROWS = 256  # images at a time


def reconstruction(x: Tensor, again: Tensor) -> dict[str, float]:
    """Mean squared error per value; for images (B, C, H, W) in [0, 1] also PSNR and SSIM.

    - mse: over all values of all samples;
    - psnr: 10 log10(1 / mse) of that mean, in dB, infinite for identity; the mean over images is higher;
    - ssim: structural similarity (Wang et al. 2004, equation 13), the mean over pixels, channels and images: 1
      for identity. The window is Wang's, Gaussian with standard deviation 1.5 on 11x11 pixels; images are
      reflected at their edges rather than cropped, so that it fits digits of 8x8. It has to be narrower for
      sides below 6. Smaller images are harder at equal mse: compare values at equal sizes.
    """
    mse = float((x.double() - again.double()).square().mean())
    if x.dim() != 4:
        return {"mse": mse}
    return {"mse": mse, "psnr": -10 * math.log10(mse) if mse else math.inf, "ssim": _ssim(x, again)}


def _ssim(x: Tensor, again: Tensor) -> float:
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    sigma = min(1.5, (min(x.shape[2:]) - 0.6) / 3.6)  # reaches int(3.5 sigma + 0.5) pixels, less than the side
    scores: list[Any] = [  # each (ROWS,)
        ssim(b.double(), a.double(), sigma=sigma, reduction="none", data_range=1.0)
        for a, b in zip(x.split(ROWS), again.split(ROWS), strict=True)
    ]
    return float(torch.cat(scores).mean())
