"""TabDDPM: diffusion of rows of mixed columns."""

import math
from itertools import pairwise
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.signature import Component, PositiveInt
from zoo.core.spaces import Table
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.data.table.constraints import constrained
from zoo.models.base import Model
from zoo.models.diffusion.base import MAX_LOG_SNR
from zoo.models.results import Likelihood
from zoo.nn.diffusion.gaussian_steps import bound_term, scales, step_back
from zoo.nn.diffusion.times import stratified
from zoo.nn.diffusion.transition import TINY, Transition
from zoo.nn.distributions.mixtures import categorical_from_uniform
from zoo.nn.distributions.table import LOG_SCALE_BOUND, START_LOG_SCALE, TableLikelihood
from zoo.nn.networks.components import Denoiser
from zoo.nn.optim.components import Optimizer
from zoo.nn.samplers.noise import fork, normal

SEED = 90_000_000  # of noise outside training
BOUND_DRAWS = 8  # noise levels for each row in the bound, beside the first step
FLOOR = -5.5  # of the log scale of the last step, within the range of the likelihood


@register("model", "tabddpm")
class TabDDPM(Model):
    """Diffusion of tables in T steps: Gaussian for numbers, multinomial for categories, by one network.

    Numbers are standard normal scores, and a missing value is a choice. Both kinds of noise share the schedule. `loss`
    is the mean squared error of the numbers and the mean bound of the choices, in nats. In the original, the network
    predicts the noise. Here it predicts v = a e - s x, which determines the data at the last step too, where a = 0. The
    step from z_1 to the data is a logistic with the standard deviation of z_1, so that numbers on a grid have
    probabilities.

    Args:
        spec: of the table.
        transition: of the categories, with the number of steps and the schedule; uniform is that of the paper.
        optimizer: with its learning rate and schedule.
        denoiser: network of the noisy row and the noise level -> logits of choices, and v of numbers.
    """

    accepts = (Table,)
    paper = "Kotelnikov, Baranchuk, Rubachev & Babenko 2022 (arXiv:2209.15421)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        transition: Annotated[str | dict[str, Any], Component("transition")] = "uniform",
        optimizer: Optimizer = "adamw",
        denoiser: Denoiser = "mlp",
    ) -> None:
        super().__init__(spec)
        self.transition: Transition = self.build_component("transition", "transition", method="bound_term")
        self.likelihood = TableLikelihood(spec)
        self.likelihood_kind = self.likelihood.kind
        self.codec = self.likelihood.codec
        self.choices = [block for block in self.codec.blocks if block.choice]
        self.denoiser = self.build_component("denoiser", "denoiser", (spec.size,), 1, 0)

    # -- noise -------------------------------------------------------------------------------------------------------

    def row(self, choices: list[Tensor], z: Tensor) -> Tensor:
        """Codes (B,) of each choice, the mask last, and numbers (B, M) -> a row (B, F); a mask is a row of zeros."""
        codes, parts = iter(choices), []
        for block in self.codec.blocks:
            if block.choice:
                parts.append(F.one_hot(next(codes), block.size + 1)[:, :-1].to(z))
            else:
                parts.append(z[:, block.scale : block.scale + 1])
        return torch.cat(parts, 1)

    def limit(self, size: int) -> Tensor:
        """The distribution of a choice at the last step, (size + 1,)."""
        return self.transition.limit(size).to(self.device)

    def noisy(self, x: Tensor, t: Tensor, uniform: Tensor, noise: Tensor) -> tuple[list[Tensor], Tensor]:
        """Rows (B, F) at steps t (B,): a code (B,) for each of the C choices, and numbers (B, M).

        Args:
            x: rows.
            t: from 0 to T.
            uniform: (2, B, C).
            noise: standard normal, (B, M).
        """
        a, s = scales(self.transition.kept(t), x)
        codes = [
            self.transition.noisy(x[:, b.places].argmax(1)[:, None], t, uniform[:, :, i : i + 1], self.limit(b.size))
            for i, b in enumerate(self.choices)
        ]
        return [code[:, 0] for code in codes], a * x[:, self.codec.at] + s * noise

    def draw_noise(self, n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Uniform numbers (2, n, C) and standard normal ones (n, M), from the CPU; a row's do not depend on n."""
        uniform = torch.rand(n, len(self.choices), 2, generator=fork(generator, "choices")).movedim(2, 0)
        noise = normal(n, len(self.codec.at), generator=generator)
        torch.rand(1, generator=generator)  # the next call draws other numbers
        return uniform.to(self.device), noise.to(self.device)

    # -- network -----------------------------------------------------------------------------------------------------

    def predict(self, codes: list[Tensor], z: Tensor, t: Tensor) -> tuple[list[Tensor], Tensor]:
        """Noisy choices and numbers (B, M) at steps (B,) -> p(x_0) of each choice (B, K + 1), and v (B, M)."""
        kept = self.transition.kept(t)
        noise = (kept.logit().clamp(-MAX_LOG_SNR, MAX_LOG_SNR) / 4).to(z.dtype)
        out = self.denoiser(self.row(codes, z), noise).float()
        return [F.pad(out[:, b.places].softmax(1), (0, 1)) for b in self.choices], out[:, self.codec.at]

    def numbers(self, z: Tensor, v: Tensor, t: Tensor) -> Tensor:
        """Estimate of the data (B, M) from v."""
        a, s = scales(self.transition.kept(t), z)
        return a * z - s * v

    def steps_back(self, codes: list[Tensor], clean: list[Tensor], s: Tensor, t: Tensor) -> list[Tensor]:
        """p(x_s | x_t) of each choice, (B, K + 1)."""
        given = zip(self.choices, codes, clean, strict=True)
        return [self.transition.posterior(c[:, None], p[:, None], s, t, self.limit(b.size))[:, 0] for b, c, p in given]

    def last_step(self, codes: list[Tensor], z: Tensor, t: Tensor) -> Tensor:
        """Parameters (B, P) of the distribution of the data given a noisy row, for `TableLikelihood`."""
        clean, v = self.predict(codes, z, t)
        shares, x = iter(self.steps_back(codes, clean, torch.zeros_like(t), t)), self.numbers(z, v, t)
        std = (1 - self.transition.kept(torch.ones(1))).sqrt().item()
        log_scale = max(math.log(std * math.sqrt(3) / math.pi), FLOOR)
        raw = LOG_SCALE_BOUND * math.atanh(log_scale / LOG_SCALE_BOUND) - START_LOG_SCALE
        parts = []
        for block in self.codec.blocks:
            if block.choice:
                parts.append(next(shares)[:, :-1].clamp(min=TINY).log())
            else:
                location = x[:, block.scale]
                parts.append(torch.stack([torch.zeros_like(location), location, torch.full_like(location, raw)], 1))
        return torch.cat(parts, 1)

    # -- objective ---------------------------------------------------------------------------------------------------

    def choice_nats(self, x: Tensor, codes: list[Tensor], clean: list[Tensor], t: Tensor) -> Tensor:
        """Terms of the bound of the C choices, (B, C)."""
        terms = [
            self.transition.bound_term(x[:, b.places].argmax(1)[:, None], c[:, None], p[:, None], t, self.limit(b.size))
            for b, c, p in zip(self.choices, codes, clean, strict=True)
        ]
        return torch.cat(terms, 1) if terms else x.new_zeros(len(x), 0)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Mean squared error of v, and mean bound of the choices."""
        x, total = batch.x, self.transition.steps
        t = 1 + (stratified(len(x), device=self.device) * total).long().clamp(max=total - 1)
        uniform, noise = torch.rand(2, len(x), len(self.choices)).to(x), torch.randn_like(x[:, self.codec.at])
        codes, z = self.noisy(x, t, uniform, noise)
        clean, v = self.predict(codes, z, t)
        a, s = scales(self.transition.kept(t), x)
        nats = total * self.choice_nats(x, codes, clean, t)
        errors = (v - (a * noise - s * x[:, self.codec.at])).square()
        return {"loss": sum((part.mean() for part in (errors, nats) if part.numel()), x.new_zeros(()))}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the bound on the negative log-likelihood in nats per row, with the same noise at every validation."""
        nats = self.bound(batch.x, 1, torch.Generator().manual_seed(SEED + batch_idx))
        self.log_epoch_mean({"val/loss": nats.mean()}, len(batch))

    # -- likelihood --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def terms(self, x: Tensor, t: Tensor, uniform: Tensor, noise: Tensor) -> Tensor:
        """Terms of the bound on -log p of rows (B, F) at steps t > 1 (B,), nats (B,); see `noisy`."""
        codes, z = self.noisy(x, t, uniform, noise)
        clean, v = self.predict(codes, z, t)
        earlier, kept = self.transition.kept(t - 1), self.transition.kept(t)
        numbers = bound_term(x[:, self.codec.at], self.numbers(z, v, t), earlier, kept)
        return self.choice_nats(x, codes, clean, t).sum(1) + numbers.sum(1)

    @torch.no_grad()
    def first_term(self, x: Tensor, uniform: Tensor, noise: Tensor) -> Tensor:
        """-log p(x | z_1) of rows (B, F), nats (B,); see `noisy`."""
        t = torch.ones(len(x), dtype=torch.int64, device=x.device)
        return -self.likelihood.log_prob(self.last_step(*self.noisy(x, t, uniform, noise), t), x)

    def bound(self, x: Tensor, draws: int, generator: torch.Generator | None = None) -> Tensor:
        """Unbiased estimate of the bound on -log p of rows (B, F), nats (B,).

        It is the first term, and T - 1 times the mean of later ones. The last step has no term: a_T = 0.

        Args:
            x: rows.
            draws: times `BOUND_DRAWS` noise levels for each row.
            generator: source of randomness.
        """
        nats = self.first_term(x, *self.draw_noise(len(x), generator))
        count, more = draws * BOUND_DRAWS, self.transition.steps - 1
        start = torch.rand(len(x), generator=generator)
        for index in range(count if more else 0):
            t = 2 + ((start + index) / count * more).long().clamp(max=more - 1).to(x.device)
            nats = nats + more / count * self.terms(x, t, *self.draw_noise(len(x), generator))
        return nats

    def likelihoods(self, x: Tensor, y: Tensor | None = None, *, k: int = 1) -> tuple[Likelihood, ...]:
        """The bound; k times as many draws make it less noisy, and not tighter."""
        return (Likelihood(-self.bound(x, k), self.likelihood_kind, exact=False, name="nll_bound"),)

    # -- samples -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    @constrained
    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        steps: PositiveInt | None = None,
    ) -> Tensor:
        """Rows (n, F).

        Args:
            n: number of rows.
            condition: none: the model is unconditional.
            generator: source of randomness.
            steps: at most those of the transition, which is the default; fewer skip some.

        Raises:
            ConfigError: too many steps.
        """
        self.check_condition(condition)
        times = self.transition.times(steps)
        sources = [fork(generator, f"step {number}") for number in range(len(times))]
        torch.rand(1, generator=generator)  # the next call draws other numbers
        mode = self.training
        self.eval()
        try:
            t = torch.full((n,), times[0], device=self.device)
            codes, z = self.noisy(torch.zeros(n, self.spec.size).to(self.device), t, *self.draw_noise(n, sources[0]))
            for (late, soon), source in zip(pairwise(times[:-1]), sources[1:], strict=False):
                t, s = torch.full_like(t, late), torch.full_like(t, soon)
                uniform, noise = self.draw_noise(n, source)
                clean, v = self.predict(codes, z, t)
                shares = self.steps_back(codes, clean, s, t)
                codes = [categorical_from_uniform(p.double(), uniform[0, :, i]) for i, p in enumerate(shares)]
                mean, std = step_back(z, self.numbers(z, v, t), self.transition.kept(s), self.transition.kept(t))
                z = mean + std * noise
            u = torch.rand(n, len(self.codec.blocks), 2, generator=sources[-1]).to(z)
            params = self.last_step(codes, z, torch.full_like(t, times[-2]))
            return self.likelihood.from_uniform(params, u)
        finally:
            self.train(mode)
