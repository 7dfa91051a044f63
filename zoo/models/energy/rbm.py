"""Restricted Boltzmann machines: an energy of pixels and binary hidden units, trained by contrastive divergence."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import Image
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule
from zoo.data.batch import Batch
from zoo.models.abilities import ExactLikelihood
from zoo.models.base import Model
from zoo.nn.blocks.standardize import FIT_ROWS
from zoo.nn.distributions.likelihoods import to_level
from zoo.nn.optim.components import Optimizer
from zoo.nn.samplers.noise import fork

MAX_LEVELS = 32  # each pixel has a weight for every level and hidden unit
ENUMERABLE = 16  # hidden units whose states are summed over: 65,536 of them
VALUES = 2**22  # numbers in one table
INITIAL_STD = 2.0  # of the log-odds of hidden units: from 0.01, they stay unused on digits of 17 levels


@register("model", "rbm")
class RBM(ExactLikelihood, Model):
    """Restricted Boltzmann machine (Smolensky 1986; Hinton 2002, Neural Computation 14).

    p(v, h) is proportional to exp(-E), with -E = b.v + c.h + v.W h, for binary hidden units h. Each pixel is one of a
    few levels, and v contains one indicator for each (Salakhutdinov et al. 2007, ICML). Given h, pixels are
    independent, and so are hidden units given the pixels.

    The loss is the mean free energy of the data minus that of samples. Its gradient is that of the negative
    log-likelihood if the samples are from the model. Its value has no meaning, and `pseudo_nll` chooses best.ckpt.

    Args:
        spec: images of at most 32 levels.
        n_hidden: hidden units. With at most 16 the likelihood is exact, by a sum over all of their states.
        negative: where chains start: "cd" at the data (Hinton 2002), or "pcd" at the ends of the last ones (Tieleman
            2008, ICML).
        k: Gibbs steps per batch.
        n_chains: of "pcd".
        optimizer: with its learning rate and schedule.

    Raises:
        ZooError: images of more levels.
    """

    accepts = (Image,)
    paper = "Smolensky 1986; Hinton 2002 (Neural Computation 14); Tieleman 2008 (ICML)"
    monitor = "val/pseudo_nll"
    likelihood_kind = "discrete"
    chains: Tensor  # levels (n_chains, D)

    def __init__(
        self,
        spec: DataSpec,
        *,
        n_hidden: PositiveInt = 16,
        negative: Literal["cd", "pcd"] = "pcd",
        k: PositiveInt = 1,
        n_chains: PositiveInt = 256,
        optimizer: Optimizer = "adam",
    ) -> None:
        super().__init__(spec)
        self.levels, self.n_hidden, self.negative, self.k = spec.image.n_levels, n_hidden, negative, k
        if self.levels > MAX_LEVELS:
            raise ZooError(
                f"model=rbm: {spec} has {self.levels} levels, and weights for {MAX_LEVELS} are the most. Choose data "
                "of fewer, such as data=binary_mnist."
            )
        if n_hidden > ENUMERABLE:
            self.lacks("likelihood", "log_prob")
        start = torch.randn(spec.size * self.levels, n_hidden) * INITIAL_STD / spec.size**0.5
        self.weight = nn.Parameter(start)  # (D * K, H)
        self.visible_bias = nn.Parameter(torch.zeros(spec.size * self.levels))
        self.hidden_bias = nn.Parameter(torch.zeros(n_hidden))
        chains = torch.randint(self.levels, (n_chains if negative == "pcd" else 0, spec.size))
        self.register_buffer("chains", chains)

    # -- the distribution ----------------------------------------------------------------------------------------

    def indicators(self, x: Tensor) -> Tensor:
        """Levels (B, D) -> indicators (B, D * K)."""
        return F.one_hot(x, self.levels).flatten(1).to(self.weight.dtype)

    def levels_of(self, x: Tensor) -> Tensor:
        """Images (B, *shape) -> levels int64 (B, D)."""
        return to_level(x, self.levels).long().flatten(1)

    def to_images(self, levels: Tensor) -> Tensor:
        """Levels (B, D), also between two of them, -> images (B, *shape)."""
        return (levels / (self.levels - 1)).unflatten(1, self.spec.shape)

    def hidden_logits(self, v: Tensor) -> Tensor:
        """Indicators (B, D * K) -> log-odds of the hidden units given them, (B, H)."""
        return v @ self.weight + self.hidden_bias

    def visible_logits(self, h: Tensor) -> Tensor:
        """Hidden units (B, H) -> unnormalised log-probabilities of the levels given them, (B, D, K)."""
        return (h @ self.weight.mT + self.visible_bias).unflatten(1, (-1, self.levels))

    def free_energy(self, x: Tensor) -> Tensor:
        """F(v) = -b.v - sum_j softplus(c_j + v.W_j) of levels (B, D), so that p(v) = exp(-F) / Z; nats (B,)."""
        v = self.indicators(x)
        return -(v @ self.visible_bias) - F.softplus(self.hidden_logits(v)).sum(1)

    def log_partition(self) -> Tensor:
        """log Z, by a sum over the states of all hidden units: log sum_h exp(c.h) prod_i sum_k exp(b_ik + W_ik.h).

        Raises:
            ZooError: too many hidden units.
        """
        if self.n_hidden > ENUMERABLE:
            raise ZooError(f"model.n_hidden={self.n_hidden}: too many states. Choose at most {ENUMERABLE}.")
        numbers = torch.arange(2**self.n_hidden, device=self.weight.device)
        parts = []
        for some in numbers.split(max(VALUES // len(self.weight), 1)):
            h = (some[:, None] >> torch.arange(self.n_hidden, device=some.device) & 1).to(self.weight.dtype)
            parts.append(h @ self.hidden_bias + self.visible_logits(h).logsumexp(2).sum(1))
        return torch.cat(parts).logsumexp(0)

    @torch.no_grad()
    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact log-probability of images, nats (B,).

        Raises:
            ZooError: too many hidden units.
        """
        return -self.free_energy(self.levels_of(x)) - self.log_partition()

    def pseudo_log_likelihood(self, x: Tensor) -> Tensor:
        """Sum over pixels of log p(pixel | others), for levels (B, D); nats (B,) (Besag 1975, The Statistician 24)."""
        v = self.indicators(x)
        logits, own = self.hidden_logits(v), v.unflatten(1, (-1, self.levels))
        weight = self.weight.unflatten(0, (-1, self.levels))  # (D, K, H)
        bias = self.visible_bias.unflatten(0, (-1, self.levels))
        total = v.new_zeros(len(v))
        for pixels in torch.arange(len(weight)).split(max(VALUES // (len(v) * self.levels * self.n_hidden), 1)):
            first, last = int(pixels[0]), int(pixels[-1]) + 1
            mine = torch.einsum("bik,ikh->bih", own[:, first:last], weight[first:last])
            changed = (logits[:, None] - mine)[:, :, None] + weight[first:last]  # (B, i, K, H)
            scores = bias[first:last] + F.softplus(changed).sum(3)  # minus free energies with another level
            total = total + (scores.log_softmax(2) * own[:, first:last]).sum((1, 2))
        return total

    # -- Gibbs sampling ------------------------------------------------------------------------------------------

    def gibbs_step(self, x: Tensor, for_hidden: Tensor, for_visible: Tensor) -> Tensor:
        """Draw hidden units, then levels (B, D), from uniform numbers (B, H) and (B, D)."""
        h = (for_hidden < self.hidden_logits(self.indicators(x)).sigmoid()).to(self.weight.dtype)
        below = self.visible_logits(h).softmax(2).cumsum(2)[..., :-1]  # P(level <= k), without the last
        return (for_visible[..., None] >= below).sum(2)

    @torch.no_grad()
    def run_chains(self, x: Tensor, steps: int) -> Tensor:
        """Levels (B, D) after so many steps, with random numbers of the device."""
        for _ in range(steps):
            for_hidden = torch.rand(len(x), self.n_hidden, device=x.device, dtype=self.weight.dtype)
            x = self.gibbs_step(x, for_hidden, torch.rand(x.shape, device=x.device, dtype=self.weight.dtype))
        return x

    # -- training ------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Start from the frequencies of the levels in the training data."""
        super().on_fit_start()
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, DataModule) and not bool(self.visible_bias.any()):
            rows = torch.linspace(0, len(data.train[0]) - 1, min(FIT_ROWS, len(data.train[0]))).long()
            self.fit_bias(data.fetch(data.train, rows, torch.Generator().manual_seed(0), train=False)[0])

    @torch.no_grad()
    def fit_bias(self, x: Tensor) -> None:
        """Set biases of levels to logarithms of their frequencies (Hinton 2010, UTML TR 2010-003, section 8)."""
        counts = torch.zeros_like(self.visible_bias)
        for part in self.levels_of(x).split(1024):
            counts += self.indicators(part).sum(0)
        self.visible_bias.copy_(((counts + 1) / (len(x) + self.levels)).log())

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """`loss` with the gradient of contrastive divergence, both free energies, and `pseudo_nll` in validation."""
        x, _ = batch
        data = self.levels_of(x)
        samples = self.run_chains(self.chains if self.negative == "pcd" else data, self.k)
        if self.negative == "pcd" and self.training:
            self.chains.copy_(samples)
        with torch.autocast(x.device.type, enabled=False):  # a difference of large numbers
            of_data, of_samples = self.free_energy(data).mean(), self.free_energy(samples).mean()
            terms = {"loss": of_data - of_samples, "free_energy_data": of_data, "free_energy_samples": of_samples}
            if not self.training:
                terms["pseudo_nll"] = -self.pseudo_log_likelihood(data).mean()
        return terms

    def modules_to_compile(self) -> list[nn.Module]:
        """None: the model has no networks."""
        return []

    def charts(self) -> dict[str, list[str]]:
        """Free energies of data and samples, and the pseudo-likelihood."""
        free = ["train/free_energy_data", "train/free_energy_samples"]
        return {"loss": ["train/loss", "val/loss"], "free energy": free, "pseudo-likelihood": ["val/pseudo_nll"]}

    # -- abilities -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        steps: PositiveInt = 1000,
    ) -> Tensor:
        """Images (n, *shape) after Gibbs steps from uniform noise.

        Args:
            n: number of samples.
            condition: the model is unconditional.
            generator: source of randomness.
            steps: of Gibbs sampling.
        """
        self.check_condition(condition)
        x = (torch.rand(n, self.spec.size, generator=fork(generator, "start")) * self.levels).long().to(self.device)
        for step in range(steps):
            numbers = torch.rand(n, self.n_hidden + self.spec.size, generator=fork(generator, f"step {step}")).to(
                self.weight
            )
            x = self.gibbs_step(x, *numbers.split([self.n_hidden, self.spec.size], 1))
        return self.to_images(x.to(self.weight.dtype))

    @torch.no_grad()
    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Probabilities of the hidden units given images, (B, H)."""
        return self.hidden_logits(self.indicators(self.levels_of(x))).sigmoid()

    @torch.no_grad()
    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Mean image given hidden units (B, H), also between 0 and 1."""
        probabilities = self.visible_logits(z).softmax(2)  # (B, D, K)
        return self.to_images(probabilities @ torch.arange(self.levels).to(probabilities))

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Mean image given the mean hidden units of images."""
        return self.decode(self.encode(x))
