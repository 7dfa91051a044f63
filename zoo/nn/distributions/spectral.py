"""A spectral distance in place of a likelihood of sounds."""

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import NonNegative
from zoo.core.spaces import Audio
from zoo.core.spec import DataSpec
from zoo.nn.distributions.likelihoods import Likelihood, at_least_float32
from zoo.nn.losses.spectral import multiscale_spectral


@register("likelihood", "spectral")
class Spectral(Likelihood):
    """Sounds near the decoder's output, by a distance of spectrograms and one of waveforms.

    `log_prob` is minus the distance times the number of samples. It is a valid objective but not a likelihood: the
    normaliser is unknown. Spectrograms do not depend on the sign of a sound; the distance of waveforms does.

    Args:
        spec: shape and kind of the data.
        sizes: windows of the transforms, in samples.
        linear: weight of the difference of magnitudes, beside that of their logarithms. At a loudness of 20 dB below
            full scale, 10 makes the terms about equal.
        wave: weight of the mean absolute difference of samples.

    Raises:
        ZooError: data that are not sounds.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        sizes: Annotated[tuple[int, ...], Ge(4)] = (64, 128, 256, 512, 1024),
        linear: NonNegative = 10.0,
        wave: NonNegative = 10.0,
    ) -> None:
        super().__init__(spec)
        if not isinstance(spec.x, Audio):
            raise ZooError(
                f"model.likelihood=spectral: needs sounds, but {spec} is {spec.x.registered_name}. "
                "Choose data of sounds, or model.likelihood=gaussian."
            )
        self.sizes, self.linear, self.wave = tuple(sizes), linear, wave

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Minus the distance of sounds (B, C, N), times the number of samples, (B,)."""
        found = self.mean(params)
        with torch.autocast(found.device.type, enabled=False):
            distance = multiscale_spectral(x.to(found.dtype), found, self.sizes, self.linear)
        return -self.spec.size * (distance + self.wave * (x - found).abs().flatten(1).mean(1))

    def mean(self, params: Tensor) -> Tensor:
        """The decoder's output (B, C, N)."""
        return at_least_float32(params)

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The decoder's output (B, C, N)."""
        return self.mean(params)
