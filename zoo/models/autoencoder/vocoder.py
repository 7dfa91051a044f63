"""Vocoder: sounds from mel spectrograms."""

import math
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor, nn

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import Component, NonNegative, PositiveInt
from zoo.core.spaces import Audio, Image
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.base import Model
from zoo.nn.blocks.mfcc import FLOOR
from zoo.nn.blocks.spectral import log_mel
from zoo.nn.distributions.likelihoods import at_least_float32
from zoo.nn.losses.spectral import multiscale_spectral
from zoo.nn.optim.components import Optimizer

LOWEST = math.log(FLOOR)  # of a mel spectrogram


@register("model", "vocoder")
class Vocoder(Model):
    """Sounds from their mel spectrograms: an autoencoder whose encoder is fixed.

    `loss` is the multi-scale spectral distance of a sound and its reconstruction. The mean absolute difference of their
    mel spectrograms is added. There is no discriminator. As a first stage, a vocoder gives mel
    spectrograms as images in [0, 1], for a prior: `python train.py model=diffusion first_stage=RUN`.

    Args:
        spec: what the data looks like; every channel is another sound.
        n_mels: bands.
        n_fft: window of the mel spectrogram in samples.
        hop: samples between frames.
        sizes: windows of the distance in samples.
        linear: weight of magnitudes in the distance, beside their logarithms; see `likelihood=spectral`.
        mel_weight: of the difference of mel spectrograms.
        waveform_decoder: network from mel spectrograms to waveforms.
        optimizer: with its learning rate and schedule.

    Raises:
        ZooError: a window that is longer than the sounds, or frames that overlap by less than half.
    """

    accepts = (Audio,)
    paper = "Siuzdak 2023 (Vocos, arXiv:2306.00814)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        n_mels: PositiveInt = 40,
        n_fft: Annotated[int, Ge(4)] = 256,
        hop: PositiveInt = 64,
        sizes: Annotated[tuple[int, ...], Ge(4)] = (64, 128, 256, 512, 1024),
        linear: NonNegative = 10.0,
        mel_weight: NonNegative = 1.0,
        waveform_decoder: Annotated[str | dict[str, Any], Component("waveform_decoder")] = "vocos",
        optimizer: Optimizer = "adamw",
    ) -> None:
        super().__init__(spec)
        if n_fft // 2 >= spec.shape[1]:
            raise ZooError(f"model.n_fft={n_fft}: too long for {spec.shape[1]} samples. Choose a shorter window.")
        if hop > n_fft // 2:
            raise ZooError(
                f"model.hop={hop}: frames of {n_fft} samples would not overlap by half. Choose a smaller one."
            )
        self.n_mels, self.n_fft, self.hop = n_mels, n_fft, hop
        self.sizes, self.linear, self.mel_weight = tuple(sizes), linear, mel_weight
        self.frames = 1 + spec.shape[1] // hop
        self.highest = math.log(3 * n_fft / 8)  # no band of samples in [-1, 1] has more, by Parseval's equation
        given = n_mels, spec.shape[1], n_fft, hop
        self.network = self.build_component("waveform_decoder", "waveform_decoder", *given)

    # -- mel spectrograms ----------------------------------------------------------------------------------------

    def mel(self, x: Tensor) -> Tensor:
        """Sounds (B, C, N) -> mel spectrograms (B, C, M, T), scaled from their possible range to [0, 1]."""
        with torch.autocast(x.device.type, enabled=False):
            found = log_mel(at_least_float32(x), self.sample_rate, self.n_fft, self.hop, self.n_mels)
        return (found - LOWEST) / (self.highest - LOWEST)

    @property
    def sample_rate(self) -> int:
        """Samples per second."""
        space: Any = self.spec.x
        return int(space.sample_rate)

    def wave(self, mel: Tensor) -> Tensor:
        """Scaled mel spectrograms (B, C, M, T) -> sounds (B, C, N)."""
        found: Tensor = self.network(4 * mel.flatten(0, 1) - 2)  # about in [-2, 2]
        return found.unflatten(0, mel.shape[:2])

    # -- the objective -------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """`spectral`, the multi-scale distance, and `mel`, the mean absolute difference of logarithms."""
        x = at_least_float32(batch.x)
        mel = self.mel(x)
        found = at_least_float32(self.wave(mel))
        with torch.autocast(x.device.type, enabled=False):
            spectral = multiscale_spectral(x, found, self.sizes, self.linear).mean()
            difference = (self.mel(found) - mel).abs().mean() * (self.highest - LOWEST)
        return {"loss": spectral + self.mel_weight * difference, "spectral": spectral, "mel": difference}

    # -- a first stage -------------------------------------------------------------------------------------------

    def latent_space(self) -> Image:
        """Mel spectrograms: images of M x T continuous values in [0, 1]."""
        return Image(self.spec.shape[0], self.n_mels, self.frames, levels=0)

    @torch.no_grad()
    def to_latent(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Sounds (B, C, N) -> mel spectrograms (B, C, M, T)."""
        return self.mel(x).clamp(0, 1)

    @torch.no_grad()
    def from_latent(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Mel spectrograms (B, C, M, T) -> sounds."""
        return at_least_float32(self.wave(z.clamp(0, 1))).clamp(-1, 1)

    # -- abilities -----------------------------------------------------------------------------------------------

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Sounds -> mel spectrograms as vectors (B, C M T)."""
        return self.to_latent(x).flatten(1)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Mel spectrograms as vectors -> sounds."""
        return self.from_latent(z.view(len(z), *self.latent_space().shape))

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Sounds -> sounds, through their mel spectrograms."""
        return self.from_latent(self.to_latent(x))

    def hidden_layers(self) -> list[nn.Module]:
        """The blocks of the network."""
        return [self.network]

    def charts(self) -> dict[str, list[str]]:
        """Loss and its two terms."""
        return {
            "loss": ["train/loss", "val/loss"],
            "spectral distance": ["train/spectral", "val/spectral"],
            "distance of mel spectrograms": ["train/mel", "val/mel"],
        }
