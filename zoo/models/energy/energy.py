"""Energy-based models: a network gives the energy of data, and Langevin dynamics draw samples."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from zoo.core.registry import register
from zoo.core.signature import Fraction, NonNegative, Positive, PositiveInt
from zoo.core.spaces import Image
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.base import Model
from zoo.nn.blocks.standardize import Standardize
from zoo.nn.distributions.likelihoods import to_level
from zoo.nn.networks.components import Encoder
from zoo.nn.optim.components import Optimizer
from zoo.nn.samplers.noise import fork

SCORE_NOISE = 0.1  # standard deviation, of the denoising score matching that chooses best.ckpt


@register("model", "energy")
class EnergyModel(Model):
    """Energy-based model, trained by persistent contrastive divergence (Du & Mordatch 2019, arXiv:1903.08689).

    p(x) is proportional to N(x; 0, s^2) exp(-f(x)), for standardised data x and a network f. The normal factor keeps
    the integral finite (Xie et al. 2016, arXiv:1602.03264). The energy is E(x) = f(x) + |x|^2 / (2 s^2). Chains follow
    Langevin dynamics x - h/2 grad E(x) + sqrt(h) n with the temperature of the model. They begin at the ends of the
    last ones, and a few at N(0, s^2) again.

    The loss is the mean of f over data minus that over chains, plus a penalty of squares. Its value has no meaning.
    The validation measures denoising score matching (Vincent 2011): |sigma grad E(x + sigma n) - n|^2 per value. It is
    lowest for the energy of data with this noise.

    Args:
        spec: what the data looks like.
        encoder: f, from data to one number.
        reference_std: s, in standard deviations of the data.
        step_size: h of the dynamics.
        k: Langevin steps per batch.
        n_chains: that persist.
        restart: share of the chains of a batch that begin at N(0, s^2) again.
        energy_decay: weight of the mean of f^2 over data and chains, which keeps values of f near zero.
        optimizer: with its learning rate and schedule.
    """

    paper = "Du & Mordatch 2019 (arXiv:1903.08689); Tieleman 2008 (ICML)"
    monitor = "val/score_matching"
    chains: Tensor  # standardised (n_chains, *shape)

    def __init__(
        self,
        spec: DataSpec,
        *,
        encoder: Encoder = "auto",
        reference_std: Positive = 2.0,
        step_size: Positive = 0.02,
        k: PositiveInt = 30,
        n_chains: PositiveInt = 1024,
        restart: Fraction = 0.05,
        energy_decay: NonNegative = 0.01,
        optimizer: Optimizer = "adam",
    ) -> None:
        super().__init__(spec)
        self.levels = spec.x.levels if isinstance(spec.x, Image) else 0
        self.standardize = Standardize(spec, images=True)
        self.encoder: nn.Module = self.build_component("encoder", "encoder", spec.shape, 1)
        self.register_buffer("chains", reference_std * torch.randn(n_chains, *spec.shape))

    # -- the distribution ----------------------------------------------------------------------------------------

    def tilt(self, x: Tensor) -> Tensor:
        """f at standardised data (B, *shape), (B,)."""
        with torch.autocast(x.device.type, enabled=False):  # differences and gradients of energies
            value: Tensor = self.encoder(x).flatten()
        return value

    def energy(self, x: Tensor) -> Tensor:
        """E at standardised data (B, *shape) in nats, up to a constant, (B,)."""
        return self.tilt(x) + x.flatten(1).square().sum(1) / (2 * self.hparams["reference_std"] ** 2)

    def score(self, x: Tensor) -> Tensor:
        """Gradient of log p at standardised data, -grad E, (B, *shape), without a graph."""
        with torch.inference_mode(False), torch.enable_grad():
            x = x.detach().clone().requires_grad_()
            (gradient,) = torch.autograd.grad(self.energy(x).sum(), x)
        return -gradient

    def langevin_step(self, x: Tensor, noise: Tensor) -> Tensor:
        """One step of the unadjusted Langevin algorithm, with normal noise; all (B, *shape)."""
        h = self.hparams["step_size"]
        return x + h / 2 * self.score(x) + math.sqrt(h) * noise

    # -- training ------------------------------------------------------------------------------------------------

    def prepare(self, x: Tensor) -> Tensor:
        """Standardised data; images with uniform noise between their levels."""
        return self.standardize((to_level(x, self.levels) + torch.rand_like(x)) / self.levels if self.levels else x)

    @torch.no_grad()
    def run_chains(self, n: int) -> Tensor:
        """n of the chains after k steps, (n, *shape); in training, the next ones start there."""
        place = torch.randint(len(self.chains), (n,), device=self.device)
        x = self.chains[place]
        fresh = torch.rand(n, *[1] * (x.ndim - 1), device=self.device) < self.hparams["restart"]
        x = torch.where(fresh, self.hparams["reference_std"] * torch.randn_like(x), x)
        mode = self.encoder.training
        self.encoder.eval()
        for _ in range(self.hparams["k"]):
            x = self.langevin_step(x, torch.randn_like(x))
        self.encoder.train(mode)
        if self.training:
            self.chains[place] = x
        return x

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """`loss` with the gradient of contrastive divergence, both means of f, and in validation `score_matching`."""
        data = self.prepare(batch.x)
        chains = self.run_chains(len(data))
        of_data, of_chains = self.tilt(data), self.tilt(chains)
        decay = self.hparams["energy_decay"] * (of_data.square().mean() + of_chains.square().mean())
        terms = {"energy_data": of_data.mean(), "energy_chains": of_chains.mean()}
        terms = {"loss": terms["energy_data"] - terms["energy_chains"] + decay} | terms
        return terms if self.training else terms | {"score_matching": self.score_matching(data)}

    def score_matching(self, x: Tensor) -> Tensor:
        """Mean of |sigma grad E(x + sigma n) - n|^2 per value, of standardised data (B, *shape)."""
        noise = torch.randn_like(x)
        return (SCORE_NOISE * self.score(x + SCORE_NOISE * noise) + noise).square().mean()

    def charts(self) -> dict[str, list[str]]:
        """Energies of data and chains, and the validation's score matching."""
        return {
            "loss": ["train/loss", "val/loss"],
            "energy": ["train/energy_data", "train/energy_chains"],
            "score matching": ["val/score_matching"],
        }

    # -- abilities -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        steps: PositiveInt = 500,
    ) -> Tensor:
        """Data (n, *shape) at the ends of Langevin chains from the reference distribution.

        Args:
            n: number of samples.
            condition: the model is unconditional.
            generator: source of randomness.
            steps: of the dynamics.
        """
        self.check_condition(condition)
        shape: Any = self.spec.shape
        start = self.randn(n, *shape, generator=fork(generator, "start")).to(self.chains.dtype)
        x = self.hparams["reference_std"] * start
        mode = self.training
        self.eval()
        for step in range(steps):
            x = self.langevin_step(x, self.randn(n, *shape, generator=fork(generator, f"step {step}")).to(x.dtype))
        self.train(mode)
        x = self.standardize.inverse(x)
        return x.clamp(0, 1) if self.levels else x
