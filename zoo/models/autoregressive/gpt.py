"""Autoregressive transformers over text and over pixels: exact likelihoods, one token after another."""

import math
from typing import Annotated, Any

import torch
from annotated_types import Gt, Interval
from torch import Tensor

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import Betas, Count, Fraction, NonNegative, Positive, PositiveInt
from zoo.core.spaces import Image, Tokens
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.autoregressive.base import LanguageModelBase, configure_optimizer
from zoo.models.base import Schedule
from zoo.nn.blocks.attention import attention_maps
from zoo.nn.blocks.position_encoding import Positions
from zoo.nn.blocks.transformer_config import MLPKind, NormKind, TransformerConfig
from zoo.nn.networks.transformer import Transformer
from zoo.nn.optim.factory import OptimizerKind
from zoo.nn.samplers.exportable import ExportableSampler, InputSpec

MOST_TOKENS = 2**16  # that patches of pixels may be: the matrix that predicts them has as many rows


@register("model", "gpt")
class GPT(LanguageModelBase):
    """GPT: a decoder-only transformer that predicts the next token of a text, or the next pixel of an image.

    Text: `loss` is nats per token, averaged over the scored ones; validation adds bits per byte of the text, which
    compares between tokenizers. Images: pixels on the data's grid of levels are tokens in raster order (row, column,
    channel), after a token that begins the image; `loss` is nats per image. With `patch`, the pixels of a small
    rectangle are one token, so that a sequence is as many times shorter; a token for every combination of their
    levels keeps the likelihood exact.

    Args:
        spec: what the data looks like; the context is its number of tokens.
        d_model: width, a multiple of n_heads.
        n_layers: transformer blocks.
        n_heads: attention heads.
        n_kv_heads: heads of keys and values, shared by groups of queries; 0 is n_heads.
        d_ff: hidden width of the MLPs; 0 is 4 d_model, or two thirds of it for the gated kinds.
        positions: how a token knows its place; see `zoo.nn.blocks.transformer_block.TransformerStack`.
        rope_theta: base of the angles of rotary positions.
        window: tokens that each sees, itself and those before it; 0 is all.
        documents: attend to nothing before the end of the text before: texts that are packed into one window are
            read as if each were alone.
        norm: before every branch.
        norm_eps: added to the variance; 0 is torch's own choice.
        mlp: the nonlinearity between the two halves of a block.
        bias: do linear maps have one?
        dropout: of embeddings, attention and branches.
        tie_weights: one matrix for reading and for predicting tokens.
        qk_norm: divide queries and keys by their RMS.
        softcap: c tanh(s / c) instead of an attention score s; 0 is off.
        logit_softcap: the same of the logits.
        conditional: images: begin with the class label.
        patch: images: height and width of the rectangle whose pixels are one token.
        optimizer: muon orthogonalises the updates of matrices and gives the rest to AdamW.
        lr: of AdamW.
        muon_lr: of Muon's matrices.
        betas: of AdamW.
        weight_decay: decoupled, of all matrices.
        schedule: of both learning rates.
        warmup: batches of linear warm-up.
        temperature: of texts where none is asked for; 0 takes the likeliest token.
        top_p: of texts where none is asked for.

    Raises:
        ZooError: sizes that do not divide, a patch with too many combinations of levels, or `conditional` without
            classes.
    """

    accepts = (Tokens, Image)
    paper = "Radford et al. 2019 (GPT-2); Vaswani et al. 2017 (arXiv:1706.03762); Chen et al. 2020 (image GPT)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        d_model: PositiveInt = 128,
        n_layers: PositiveInt = 4,
        n_heads: PositiveInt = 4,
        n_kv_heads: Count = 0,
        d_ff: Count = 0,
        positions: Positions = "rotary",
        rope_theta: Positive = 10000.0,
        window: Count = 0,
        documents: bool = False,
        norm: NormKind = "layernorm",
        norm_eps: NonNegative = 0.0,
        mlp: MLPKind = "relu2",
        bias: bool = False,
        dropout: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.0,
        tie_weights: bool = True,
        qk_norm: bool = True,
        softcap: NonNegative = 0.0,
        logit_softcap: NonNegative = 0.0,
        conditional: bool = False,
        patch: Annotated[tuple[int, int], Gt(0)] = (1, 1),
        optimizer: OptimizerKind = "muon",
        lr: Positive = 5e-3,
        muon_lr: Positive = 0.02,
        betas: Betas = (0.9, 0.95),
        weight_decay: NonNegative = 0.0,
        schedule: Schedule = "linear",
        warmup: Count = 10,
        temperature: NonNegative = 1.0,
        top_p: Fraction = 1.0,
    ) -> None:
        super().__init__(spec)
        if conditional and not spec.n_classes:
            raise ZooError(f"model.conditional=true needs data with classes, and {spec} has none: leave it out.")
        self.conditional, self.patch = conditional, (patch[0], patch[1])
        if not self.text:
            self.lacks("generate", "token_loss", "token_accuracy")
            self._check_patch()
        pixels = 1 if self.text else math.prod(self.patch)  # of a token
        self.n_tokens = spec.tokens.vocab_size if self.text else spec.image.levels**pixels
        begins = 0 if self.text else max(spec.n_classes if conditional else 1, 1)
        self.net = Transformer(
            self.n_tokens + begins,
            self.n_tokens,
            spec.size // pixels,
            TransformerConfig(
                d_model,
                n_heads,
                n_kv_heads,
                d_ff=d_ff,
                norm=norm,
                norm_eps=norm_eps,
                mlp=mlp,
                bias=bias,
                qk_norm=qk_norm,
                softcap=softcap,
                dropout=dropout,
            ),
            n_layers,
            positions=positions,
            window=window,
            theta=rope_theta,
            tie_weights=tie_weights,
            softcap=logit_softcap,
            end=self.begin if documents and self.text else None,
        )

    # -- likelihood ------------------------------------------------------------------------------------------

    def _check_patch(self) -> None:
        (_, height, width), (rows, columns), levels = self.spec.shape, self.patch, self.spec.image.levels
        if height % rows or width % columns:
            raise ZooError(
                f"model.patch=[{rows},{columns}] does not divide images of {height}x{width}: choose divisors of both."
            )
        if levels ** (rows * columns) > MOST_TOKENS:
            raise ZooError(
                f"model.patch=[{rows},{columns}] of {levels} levels makes {levels}^{rows * columns} tokens, more than "
                f"{MOST_TOKENS}: choose a smaller patch."
            )

    def tokens(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> tokens (B, H/rows W/columns C): levels in a patch are digits of a number."""
        rows, columns = self.patch
        level = (x * (self.spec.image.levels - 1)).round().long()
        level = level.unflatten(3, (-1, columns)).unflatten(2, (-1, rows))  # (B, C, H/r, r, W/c, c)
        digits = level.permute(0, 2, 4, 1, 3, 5).flatten(4)  # (B, H/r, W/c, C, r c)
        return (digits * self._place_values(x.device)).sum(-1).flatten(1)

    def images(self, tokens: Tensor) -> Tensor:
        """Inverse of `tokens`."""
        (channels, height, width), (rows, columns) = self.spec.shape, self.patch
        digits = tokens[..., None] // self._place_values(tokens.device) % self.spec.image.levels
        level = digits.reshape(len(tokens), height // rows, width // columns, channels, rows, columns)
        return level.permute(0, 3, 1, 4, 2, 5).reshape(len(tokens), *self.spec.shape) / (self.spec.image.levels - 1)

    def _place_values(self, device: torch.device) -> Tensor:
        return self.spec.image.levels ** torch.arange(math.prod(self.patch), device=device)

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Of every target token (B, T, V), and the targets (B, T), negative where they are not scored."""
        read, target = self._read_and_target(batch)
        return self.net(read), target

    def _read_and_target(self, batch: Batch) -> Batch:
        """Tokens (B, T), and the token that follows each."""
        x, y = batch
        if self.text:
            return batch
        target = self.tokens(x)
        begin = self.n_tokens + (y if self.conditional else torch.zeros_like(y))
        return Batch(torch.cat([begin[:, None], target[:, :-1]], dim=1), target)

    def attention(self, batch: Batch) -> dict[str, Tensor]:
        """The weights (B, H, T, T) of each block, reading x."""
        read = self._read_and_target(batch).x
        return attention_maps(self.net, lambda: self.net(read))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nats per scored token of text, or per image."""
        if self.text:
            return super().loss(batch)
        loss = self.nats(batch)[0].sum(1).mean()
        return {"loss": loss, "bits_per_dim": loss.detach() / (self.spec.size * math.log(2))}

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact nats (B,): of images (a conditional model without labels sums over the classes), or of the y
        that follow the tokens x; without y, of the tokens x as the beginning of a text.
        """
        if self.text:
            return super().log_prob(x, y)
        if y is None and self.conditional:
            classes = range(self.spec.n_classes)
            each = [self.log_prob(x, torch.full((len(x),), k, device=x.device)) for k in classes]
            return torch.stack(each).logsumexp(0) - math.log(len(each))
        y = torch.zeros(len(x), dtype=torch.long, device=x.device) if y is None else y
        return -self.nats(Batch(x, y))[0].sum(1)

    # -- sampling --------------------------------------------------------------------------------------------

    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Tensor:
        """Images (n, C, H, W), or token ids (n, T) of texts from their beginning; what follows an end is the end too.

        Args:
            n: how many.
            condition: class labels (n,) of a conditional model.
            generator: source of randomness.
            **options: `max_new_tokens` (text; None is a whole context) and those of `zoo.nn.samplers.autoregressive.SamplingParams`.
        """
        if self.text:
            return super().sample(n, condition=condition, generator=generator, **options)
        begin = torch.full((n,), self.n_tokens)
        if self.conditional:
            begin = begin + self.labels(n, condition, generator).cpu()
        elif condition is not None:
            raise ZooError(
                "this model takes no condition: train it with model.conditional=true on images with classes."
            )
        return self.images(self.drawn(begin[:, None].tolist(), self.net.context, self.sampling(options), generator))

    def core(self) -> ExportableSampler:
        """Tokens (B, T) -> logits of the next ones (B, T, V), T up to the context."""
        embedded = self.net.embedding.num_embeddings
        tokens = InputSpec("tokens", "token", (self.net.context,), high=embedded)
        begins = [self.end] if self.text else range(self.n_tokens, embedded)
        return ExportableSampler(self.net, [tokens], self.net, start_tokens=begins)

    # -- training --------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """Muon for the matrices of the blocks and AdamW for the rest, or AdamW for all."""
        return configure_optimizer(self, self.net.blocks)

    def dashboard(self) -> dict[str, list[str]]:
        """Loss, and the number that compares between tokenizers or families."""
        if self.text:
            return super().dashboard()
        return {
            "nats": ["train/loss", "val/loss"],
            "bits per dim": ["train/bits_per_dim", "val/bits_per_dim"],
        }
