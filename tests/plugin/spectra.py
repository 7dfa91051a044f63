"""Third-party modality and family: tests copy this file into a separate package, which changes no built-in file.

Spectra are magnitudes at equally spaced frequencies. The model is a linear map from noise, trained on the distance of
means. It is a bad model, but it exercises every part of the zoo.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import zoo
from zoo.core.signature import PositiveInt
from zoo.core.space import Space
from zoo.evaluation.context import Metric
from zoo.evaluation.suites.base import Suite
from zoo.models.results import Visual
from zoo.nn.samplers.exportable import ExportableSampler, InputSpec
from zoo.viz.images import grid
from zoo.viz.render import Renderer


@zoo.register("space", "spectrum")
@dataclass(frozen=True)
class Spectrum(Space):
    """Magnitudes at equally spaced frequencies, float (B, bins)."""

    unit = "spectra"
    bins: PositiveInt

    @property
    def shape(self) -> tuple[int]:
        """(bins,)."""
        return (self.bins,)


@zoo.register("renderer", "spectrum")
class SpectrumRenderer(Renderer):
    """Bars."""

    n_samples = 9

    def render(self, x: Tensor, columns: int | None = None) -> Any:
        """Bars (B, bins) as pictures of 16 rows."""
        height = torch.arange(16, 0, -1)[:, None] / 16
        return grid((x.cpu()[:, None, None] >= height).float(), columns)  # (B, 1, 16, bins)


@zoo.register("data", "ramps")
class Ramps(zoo.DataModule):
    """Spectra that fall off at a random rate."""

    def __init__(self, *, bins: PositiveInt = 12, batch_size: PositiveInt = 16, seed: int = 0) -> None:
        super().__init__(batch_size, seed)
        self.bins = bins

    @property
    def spec(self) -> zoo.DataSpec:
        """Spectra without labels."""
        return zoo.DataSpec(Spectrum(self.bins), name="ramps")

    def load(self) -> None:
        """Draw them."""
        rate = torch.rand(320, 1, generator=torch.Generator().manual_seed(0))
        x = torch.exp(-rate * torch.arange(self.bins))
        y = torch.zeros(320, dtype=torch.long)
        self.train, self.val, self.test = ((x[i:j], y[i:j]) for i, j in ((0, 240), (240, 280), (280, 320)))


@zoo.register("model", "linear_spectra")
class LinearSpectra(zoo.Model):
    """Linear map from noise, trained by the distance of means (nobody 2026)."""

    accepts = (Spectrum,)
    family = "spectral"

    def __init__(self, spec: zoo.DataSpec, *, latent_dim: PositiveInt = 3, optimizer: zoo.Optimizer = "adam") -> None:
        super().__init__(spec)
        self.latent_dim = latent_dim
        self.net = nn.Linear(latent_dim, spec.size)

    def loss(self, batch: Any) -> dict[str, Tensor]:
        """Squared distance of means."""
        fake = self.net(torch.randn(len(batch), self.latent_dim, device=self.device))
        return {"loss": (fake.mean(0) - batch.x.mean(0)).square().sum()}

    def sample(
        self, n: int, *, condition: Tensor | None = None, generator: torch.Generator | None = None, scale: float = 1.0
    ) -> Tensor:
        """Draw n spectra, (n, bins); `scale` multiplies the noise."""
        return self.net(scale * self.randn(n, self.latent_dim, generator=generator))

    def visuals(self, batch: Any) -> Any:
        """The mean spectrum."""
        yield Visual("mean", self.spec.x, self.net.bias.detach()[None])

    def export_module(self) -> ExportableSampler:
        """Noise -> spectra."""
        return ExportableSampler(self.net, [InputSpec("noise", "normal", (self.latent_dim,))], self.net)


@zoo.register("suite", "slope")
class SlopeSuite(Suite):
    """Fall of the mean spectrum."""

    def applies(self, model: Any, data: Any) -> bool:
        """Spectra."""
        return isinstance(data.spec.x, Spectrum)

    def measure(self, context: Any) -> dict[str, Metric]:
        """First magnitude minus last."""
        mean = context.drawn[0].mean(0)
        return {context.name("fall", context.n): Metric(float(mean[0] - mean[-1]), "reference")}
