"""Next-scale prediction: codes on grids from coarse to fine, all codes of a grid at once."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from zoo.core.errors import ConfigError, DataError
from zoo.core.registry import register
from zoo.core.signature import Count, DropoutRate, Fraction, NonNegative, Positive, PositiveInt
from zoo.core.spaces import Codes
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.abilities import ExactLikelihood
from zoo.models.autoregressive.base import marginal_log_prob, token_nll
from zoo.models.base import Model
from zoo.models.given_condition import rows_without_condition
from zoo.nn.blocks.grid_resize import GridResize
from zoo.nn.blocks.transformer_block import TransformerStack
from zoo.nn.blocks.transformer_config import TransformerConfig
from zoo.nn.diffusion.unmasking import draw_tokens
from zoo.nn.optim.components import Optimizer
from zoo.nn.optim.muon import hidden_layers
from zoo.nn.samplers.exportable import ExportableSampler, InputSpec
from zoo.nn.samplers.sampling_params import SamplingParams


@register("model", "next_scale")
class NextScale(ExactLikelihood, Model):
    """Autoregressive prior of multi-scale codes: scale by scale (VAR, Tian et al. 2024, arXiv:2404.02905).

    The codes come from a first stage with `model/quantizer=multi_scale`. A transformer predicts all codes of a scale at
    once, from the codes of all coarser scales: log P = sum_k sum_i log p(code_ki | scales before k). So the codes of
    one scale are independent given the coarser ones, and a sample takes one evaluation for each scale. The input at a
    place is the sum of the coarser codes' learned vectors, enlarged and averaged to that place. The probability of
    codes is exact. `loss` is nats per image.

    Unlike in the paper, labels are added to all inputs, and the vectors of codes are learned here.

    Args:
        spec: codes on several grids.
        d_model: width, a multiple of n_heads.
        n_layers: transformer blocks.
        n_heads: attention heads.
        dropout: of embeddings, attention and branches.
        conditional: condition on class labels; None does so if the data have labels.
        label_dropout: share of a batch that is trained without its label, for guidance.
        guidance: default weight of classifier-free guidance; 1 is off.
        optimizer: with its learning rate and schedule; muon takes the matrices of the blocks.

    Raises:
        DataError: codes of one grid.
        ConfigError: guidance without labels.
    """

    accepts = (Codes,)
    paper = "Tian et al. 2024 (arXiv:2404.02905)"
    likelihood_kind = "discrete"
    readable: Tensor  # bool (T, T): which inputs a place attends to

    def __init__(
        self,
        spec: DataSpec,
        *,
        d_model: PositiveInt = 128,
        n_layers: PositiveInt = 4,
        n_heads: PositiveInt = 4,
        dropout: DropoutRate = 0.1,
        conditional: bool | None = None,
        label_dropout: Fraction = 0.1,
        guidance: NonNegative = 1.0,
        optimizer: Optimizer = "muon",
    ) -> None:
        super().__init__(spec)
        space: Any = spec.x
        self.grids, self.n_codes = space.scales, space.codebook_size
        if not self.grids:
            raise DataError(
                f"model=next_scale: {spec} has codes of one grid. Train the first stage with "
                "model/quantizer=multi_scale."
            )
        self.conditional = bool(spec.n_classes) if conditional is None else self.conditional
        if guidance != 1 and not self.conditional:
            raise ConfigError(f"model.guidance={guidance}: the model is unconditional. Leave it out.")
        self.lengths = [math.prod(size) for size in self.grids]
        n, full = len(self.grids), self.grids[-1]
        self.none = spec.n_classes if self.conditional else 0  # in place of a label
        self.label = nn.Embedding(self.none + 1, d_model)
        self.codes = nn.ModuleList(nn.Embedding(self.n_codes, d_model) for _ in range(n - 1))
        self.up = nn.ModuleList(GridResize(size, full, "bicubic") for size in self.grids[:-1])
        self.down = nn.ModuleList(GridResize(full, size, "area") for size in self.grids)
        config = TransformerConfig(d_model, n_heads, qk_norm=True, dropout=dropout)
        self.net = TransformerStack(config, n_layers, space.size, position_encoding="learned", causal=False)
        self.net.reset()
        self.heads = nn.ModuleList(nn.Linear(d_model, self.n_codes) for _ in range(n))
        for table in (self.label, *self.codes):
            nn.init.normal_(table.weight, std=0.02)
        for head in self.heads:
            nn.init.zeros_(head.weight)  # type: ignore[arg-type]
        scale = torch.cat([torch.full((length,), i) for i, length in enumerate(self.lengths)])  # of each code (T,)
        self.register_buffer("readable", scale <= scale[:, None], persistent=False)

    # -- likelihood ----------------------------------------------------------------------------------------------

    def added(self, total: Tensor, scale: int, codes: Tensor) -> Tensor:
        """The sum of vectors (B, d, H, W) with those of a scale's codes (B, h w) added."""
        vectors = self.codes[scale](codes).mT.unflatten(2, self.grids[scale])
        found: Tensor = total + self.up[scale](vectors)
        return found

    def read(self, total: Tensor, scale: int, y: Tensor) -> Tensor:
        """Inputs of a scale (B, h w, d), from the sum over coarser scales (B, d, H, W) and labels (B,)."""
        return self.down[scale](total).flatten(2).mT + self.label(y)[:, None]

    def nothing(self, n: int) -> Tensor:
        """The sum of vectors before the first scale, (n, d, H, W)."""
        return self.label.weight.new_zeros(n, self.hparams["d_model"], *self.grids[-1])

    def logits(self, codes: Tensor, y: Tensor) -> Tensor:
        """Rows of codes (B, T) and labels or `none` (B,) -> logits (B, T, K); those of a scale ignore its own codes."""
        rows, inputs, total = codes.split(self.lengths, 1), [], self.nothing(codes.shape[0])
        for scale, row in enumerate(rows):
            inputs.append(self.read(total, scale, y))
            if scale + 1 < len(rows):
                total = self.added(total, scale, row)
        features = self.net.run(torch.cat(inputs, 1), allowed=self.readable).split(self.lengths, 1)
        return torch.cat([head(h) for head, h in zip(self.heads, features, strict=True)], 1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nats per image, and bits per code."""
        nats = token_nll(self.logits(batch.x, self.dropped(self.labels(batch.x, batch.y))), batch.x).sum(1).mean()
        return {"loss": nats, "bits_per_dim": nats.detach() / (self.spec.size * math.log(2))}

    def labels(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Labels (B,), or `none` for an unconditional model."""
        return y if self.conditional and y is not None else torch.full((x.shape[0],), self.none, device=x.device)

    def dropped(self, y: Tensor) -> Tensor:
        """Labels (B,), in training with those of some rows replaced by `none`."""
        share = self.hparams["label_dropout"]
        if not (self.conditional and self.training and share):
            return y
        return y.masked_fill(rows_without_condition(len(y), share, y.device), self.none)

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact log-likelihood in nats (B,); a conditional model without labels averages over the classes."""
        if y is None and self.conditional:
            return marginal_log_prob(self.log_prob, x, self.class_shares)
        return -token_nll(self.logits(x, self.labels(x, y)), x).sum(1)

    # -- sampling ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def draw(
        self, uniform: Tensor, y: Tensor, params: SamplingParams, weight: float = 1.0, *, cached: bool = True
    ) -> Tensor:
        """Rows of codes (n, T) from uniform numbers (n, T) and labels or `none` (n,).

        Args:
            uniform: numbers in [0, 1), one for each code.
            y: labels.
            params: of the choice of each code.
            weight: of classifier-free guidance, logits u + w (c - u).
            cached: read each scale once; otherwise all scales again for each scale, with the same result.
        """
        n, guided = uniform.shape[0], weight != 1
        both = torch.cat([y, torch.full_like(y, self.none)]) if guided else y
        cache, total = self.net.new_cache(both.shape[0]), self.nothing(both.shape[0])
        codes = torch.zeros_like(uniform, dtype=torch.int64)
        for scale, (head, numbers) in enumerate(zip(self.heads, uniform.split(self.lengths, 1), strict=True)):
            start = sum(self.lengths[:scale])
            place = slice(start, start + self.lengths[scale])
            if cached:
                logits = head(self.net.run(self.read(total, scale, both), cache=cache))
            else:
                logits = self.logits(codes.repeat(2, 1) if guided else codes, both)[:, place]
            if guided:
                logits = logits[n:] + weight * (logits[:n] - logits[n:])
            row, _ = draw_tokens(logits, numbers, params)
            codes = torch.cat([codes[:, : place.start], row, codes[:, place.stop :]], 1)
            if scale + 1 < len(self.grids):
                total = self.added(total, scale, row.repeat(2, 1) if guided else row)
        return codes

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        guidance: NonNegative | None = None,
        temperature: NonNegative = 1.0,
        top_k: Count = 0,
        top_p: Positive = 1.0,
    ) -> Tensor:
        """Draw n rows of codes (n, T), by one evaluation for each scale.

        Args:
            n: number of samples.
            condition: class labels (n,); None draws them at random.
            generator: source of randomness.
            guidance: weight of classifier-free guidance; 1 is off, None is the model's default.
            temperature: divides the logits; 0 is greedy.
            top_k: keep only the k likeliest codes of each place; 0 keeps all.
            top_p: keep the smallest set of likeliest codes with this much probability.

        Raises:
            DataError: the model is unconditional, or the condition is not n class labels.
            ConfigError: guidance without labels, or an option out of range.
        """
        weight = self.hparams["guidance"] if guidance is None else guidance
        if weight != 1 and not self.conditional:
            raise ConfigError(f"guidance={weight}: the model is unconditional. Leave it out.")
        params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p)
        y = self.resolve_labels(n, condition, generator)
        uniform = torch.rand(n, self.spec.size, generator=generator).to(self.device)
        mode = self.training
        self.eval()
        try:
            return self.draw(uniform, y, params, weight)
        finally:
            self.train(mode)

    def export_module(self) -> ExportableSampler:
        """Uniform numbers, and labels if conditional -> rows of codes."""
        inputs = [InputSpec("token", "uniform", (self.spec.size,))]
        if self.conditional:
            inputs.append(InputSpec("label", "class", high=self.spec.n_classes, shares=tuple(self.class_shares)))

        def function(token: Tensor, y: Tensor | None = None) -> Tensor:
            y = torch.zeros_like(token[:, 0], dtype=torch.int64) if y is None else y
            return self.draw(token, y, SamplingParams(), self.hparams["guidance"], cached=False)

        return ExportableSampler(function, inputs, *self.children())

    # -- training ------------------------------------------------------------------------------------------------

    def hidden_layers(self) -> list[nn.Module]:
        """The network's blocks."""
        return hidden_layers(self.net)

    def charts(self) -> dict[str, list[str]]:
        """Loss, and bits per code."""
        return {"loss": ["train/loss", "val/loss"], "bits per dim": ["train/bits_per_dim", "val/bits_per_dim"]}
