"""Autoregressive transformers over text and over pixels: exact likelihoods, one token after another."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any, Literal

import torch
from annotated_types import Interval
from torch import Tensor
from torch.nn import functional as F

from zoo import registry
from zoo.errors import ZooError
from zoo.models.base import Batch, GenerativeModel, Schedule
from zoo.nn.core import Core, Input
from zoo.nn.decoding import BLOCK, Sampling, beam_search, choices, draw, write
from zoo.nn.optim import Muon
from zoo.nn.transformer import MLPKind, NormKind, Positions, Transformer
from zoo.nn.writing import Completion, Writer, writers
from zoo.registry import register
from zoo.spec import Betas, Count, DataSpec, Fraction, NonNegative, Positive, PositiveInt


@register("model", "gpt")
class GPT(GenerativeModel):
    """GPT: a decoder-only transformer that predicts the next token of a text, or the next pixel of an image.

    Text: `loss` is nats per token, averaged over the scored ones; validation adds bits per byte of the text, which
    compares between tokenizers. Images: pixels on the data's grid of levels are tokens in raster order (row, column,
    channel), after a token that begins the image; `loss` is nats per image.

    Args:
        spec: what the data looks like; the context is its number of tokens.
        d_model: width, a multiple of n_heads.
        n_layers: transformer blocks.
        n_heads: attention heads.
        positions: how a token knows its place.
        norm: before every branch.
        mlp: the nonlinearity between the two halves of a block; gelu and layernorm with learned positions is
            GPT-2.
        dropout: of embeddings, attention and branches.
        tie_weights: one matrix for reading and for predicting tokens.
        qk_norm: divide queries and keys by their RMS.
        conditional: images: begin with the class label.
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
        ZooError: sizes that do not divide, or `conditional` without classes.
    """

    accepts = ("tokens", "image")
    family = "autoregressive"
    paper = "Radford et al. 2019 (GPT-2); Vaswani et al. 2017 (arXiv:1706.03762); Chen et al. 2020 (image GPT)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        d_model: PositiveInt = 128,
        n_layers: PositiveInt = 4,
        n_heads: PositiveInt = 4,
        positions: Positions = "rotary",
        norm: NormKind = "layernorm",
        mlp: MLPKind = "relu2",
        dropout: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.0,
        tie_weights: bool = True,
        qk_norm: bool = True,
        conditional: bool = False,
        optimizer: Literal["muon", "adamw"] = "muon",
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
        self.conditional, self.text = conditional, spec.kind == "tokens"
        self.n_tokens = spec.vocab_size if self.text else spec.levels
        begins = 0 if self.text else max(spec.n_classes if conditional else 1, 1)
        self.net = Transformer(
            self.n_tokens + begins,
            self.n_tokens,
            spec.dim,
            d_model=d_model,
            n_layers=n_layers,
            n_heads=n_heads,
            positions=positions,
            norm=norm,
            mlp=mlp,
            dropout=dropout,
            tie_weights=tie_weights,
            qk_norm=qk_norm,
        )
        self.tokenizer: Any = None  # a zoo.data.tokenizers.Tokenizer
        if spec.tokenizer:
            saved = json.loads(spec.tokenizer)
            self.tokenizer = registry.get("tokenizer", saved["name"]).load(saved["state"])  # type: ignore[attr-defined]
            sizes = torch.tensor([len(piece) for piece in self.tokenizer.pieces])
            self.register_buffer("piece_bytes", sizes, persistent=False)

    # -- likelihood ------------------------------------------------------------------------------------------

    def tokens(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> tokens (B, H W C)."""
        return (x * (self.spec.levels - 1)).round().long().permute(0, 2, 3, 1).flatten(1)

    def images(self, tokens: Tensor) -> Tensor:
        """Inverse of `tokens`."""
        channels, height, width = self.spec.shape
        return tokens.reshape(-1, height, width, channels).permute(0, 3, 1, 2) / (self.spec.levels - 1)

    def nats(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cost of every target token (B, T) in nats, zero where it is not scored; and the targets."""
        x, y = batch
        if self.text:
            read, target = x, y
        else:
            target = self.tokens(x)
            begin = self.n_tokens + (y if self.conditional else torch.zeros_like(y))
            read = torch.cat([begin[:, None], target[:, :-1]], dim=1)
        logits = self.net(read)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(logits.transpose(1, 2), target, reduction="none"), target

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nats per scored token of text, or per image."""
        nats, target = self.nats(batch)
        if self.text:
            return {"loss": nats.sum() / (target >= 0).sum()}
        loss = nats.sum(1).mean()
        return {"loss": loss, "bits_per_dim": loss.detach() / (self.spec.dim * math.log(2))}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """For text, averages over all tokens and all bytes of the split, however they are batched."""
        if not self.text:
            super().validation_step(batch, batch_idx)
            return
        nats, target = self.nats(batch)
        scored = target >= 0
        self._log_mean("val/loss", nats.sum(), scored.sum())
        if self.tokenizer is not None:
            sizes = self.piece_bytes[target.clamp(min=0)] * scored  # type: ignore[index]
            known = (sizes > 0) & (target != self.tokenizer.unknown)
            self._log_mean("val/bits_per_byte", (nats * known).sum() / math.log(2), (sizes * known).sum())

    def _log_mean(self, name: str, total: Tensor, number: Tensor) -> None:
        weight = int(number)  # only in validation: Lightning wants a number on the host
        if weight:
            self.log_means({name: total / weight}, weight)

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact nats (B,): of images (a conditional model without labels sums over the classes), or of the y
        that follow the tokens x; without y, of the tokens x as the beginning of a text.
        """
        if self.text:
            if y is None:
                x, y = F.pad(x[:, :-1], (1, 0), value=self.end), x
            return -self.nats((x, y))[0].sum(1)
        if y is None and self.conditional:
            classes = range(self.spec.n_classes)
            each = [self.log_prob(x, torch.full((len(x),), k, device=x.device)) for k in classes]
            return torch.stack(each).logsumexp(0) - math.log(len(each))
        y = torch.zeros(len(x), dtype=torch.long, device=x.device) if y is None else y
        return -self.nats((x, y))[0].sum(1)

    # -- sampling --------------------------------------------------------------------------------------------

    @property
    def end(self) -> int:
        """The token before and after a text."""
        return self.spec.vocab_size - 1 if self.tokenizer is None else self.tokenizer.end

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
            **options: `max_new_tokens` (text; None is a whole context) and those of `zoo.nn.decoding.Sampling`.
        """
        length = options.pop("max_new_tokens", None) or self.spec.dim
        begin = torch.full((n,), self.end if self.text else self.n_tokens)
        if self.conditional:
            begin = begin + self.labels(n, condition, generator).cpu()
        elif condition is not None:
            raise ZooError(
                "this model takes no condition: train it with model.conditional=true on images with classes."
            )
        if n == 0:
            return torch.empty(0, *self.spec.shape)
        drawn = self._quietly(
            draw(
                self.net,
                begin[:, None].tolist(),
                self.sampling(options),
                generator=generator,
                every=length if self.text else self.spec.dim,
                device=self.device,
            )
        )
        tokens, _ = next(drawn)
        if not self.text:
            return self.images(tokens)
        return tokens.masked_fill((tokens == self.end).cumsum(1) > 0, self.end)

    def sampling(self, options: dict[str, Any]) -> Sampling:
        """Options over the model's own temperature and top-p for text; images follow the density exactly."""
        own = {name: self.hparams[name] for name in ("temperature", "top_p")} if self.text else {}
        return choices(options, **own)

    def generate(
        self,
        prompts: list[str],
        *,
        max_new_tokens: int | None = None,
        beams: int = 1,
        length_penalty: float = 1.0,
        stop: list[str] | tuple[str, ...] = (),
        seed: int | None = None,
        **options: Any,
    ) -> list[Completion]:
        """Continue texts; each says why it ended.

        Args:
            prompts: of any length; "" begins a text.
            max_new_tokens: None writes until the model ends the text or its context is full, which is
                "length".
            beams: more than one is beam search, which takes no sampling options.
            length_penalty: of beam search, see `zoo.nn.decoding.beam_search`.
            stop: texts that end the writing and are left out.
            seed: of the choices; None is torch's global randomness.
            **options: temperature (0 is greedy), top_k, top_p, repetition_penalty.
        """
        if beams <= 1:
            pens = self._writers(prompts, max_new_tokens, stop)
            for _ in self._write(prompts, pens, seed, options, BLOCK):
                pass
            return [pen.result() for pen in pens]
        asked, plain = asdict(choices(options)), asdict(Sampling())
        if given := [name for name in plain if asked[name] != plain[name]]:
            raise ZooError(f"beam search chooses nothing at random: leave out {', '.join(given)}, or set beams=1.")
        found = []
        for prompt, writer in zip(prompts, self._writers(prompts, max_new_tokens, stop), strict=True):
            search = self._quietly(
                beam_search(
                    self.net,
                    self._read(prompt),
                    self.tokenizer.pieces,
                    self.end,
                    beams=beams,
                    limit=writer.limit or 0,
                    length_penalty=length_penalty,
                    stop=stop,
                    device=self.device,
                )
                for _ in range(1)
            )
            found.append(next(search))
        return found

    def stream(
        self,
        prompt: str,
        *,
        max_new_tokens: int | None = None,
        stop: list[str] | tuple[str, ...] = (),
        seed: int | None = None,
        **options: Any,
    ) -> Iterator[str]:
        """The text of `generate([prompt])[0]`, piece by piece as it is written."""
        pens = self._writers([prompt], max_new_tokens, stop)
        return (text for _, text in self._write([prompt], pens, seed, options, 1))

    def _writers(self, prompts: list[str], limit: int | None, stop: list[str] | tuple[str, ...]) -> list[Writer]:
        if self.tokenizer is None:
            raise ZooError(f"this model learned {self.spec}, not text: use sample().")
        lengths = [len(self._read(prompt)) for prompt in prompts]
        return writers(lengths, self.net.context, self.tokenizer.pieces, self.end, stop, limit)

    def _read(self, prompt: str) -> list[int]:
        return [self.end, *self.tokenizer.encode(prompt)]

    def _write(
        self, prompts: list[str], pens: list[Writer], seed: int | None, options: dict[str, Any], every: int
    ) -> Iterator[tuple[int, str]]:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        rows, how = [self._read(prompt) for prompt in prompts], self.sampling(options)
        return self._quietly(write(self.net, rows, pens, how, generator=generator, every=every, device=self.device))

    def _quietly(self, steps: Iterator[Any]) -> Iterator[Any]:
        """The same steps without dropout; a training that is under way goes on as before between them."""
        while True:
            training = self.net.training
            self.net.eval()
            try:
                item = next(steps)
            except StopIteration:
                return
            finally:
                self.net.train(training)
            yield item

    def core(self) -> Core:
        """Tokens (B, T) -> logits of the next ones (B, T, V), T up to the context."""
        embedded = self.net.embedding.num_embeddings
        tokens = Input("tokens", "token", (self.net.context,), high=embedded)
        begins = [self.end] if self.text else range(self.n_tokens, embedded)
        return Core(self.net, [tokens], self.net, begins=begins)

    # -- training --------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """Muon for the matrices of the blocks and AdamW for the rest, or AdamW for all."""
        h = self.hparams
        matrices = [p for p in self.net.blocks.parameters() if p.ndim == 2]
        held = {id(p) for p in matrices}
        others = [p for p in self.net.parameters() if id(p) not in held]
        optimizer: torch.optim.Optimizer
        if h["optimizer"] == "muon":
            optimizer = Muon(
                matrices,
                others,
                lr=h["muon_lr"],
                adamw_lr=h["lr"],
                weight_decay=h["weight_decay"],
                betas=tuple(h["betas"]),
            )
        else:
            groups = [
                {
                    "params": [p for p in self.net.parameters() if p.ndim == 2],
                    "weight_decay": h["weight_decay"],
                },
                {"params": [p for p in self.net.parameters() if p.ndim != 2], "weight_decay": 0.0},
            ]
            groups = [g for g in groups if g["params"]]
            optimizer = torch.optim.AdamW(groups, lr=h["lr"], betas=tuple(h["betas"]))
        return self.scheduled(optimizer, h["schedule"], h["warmup"])

    def dashboard(self) -> dict[str, list[str]]:
        """Loss, and the number that compares between tokenizers or families."""
        if self.text:
            return {"nats per token": ["train/loss", "val/loss"], "bits per byte": ["val/bits_per_byte"]}
        return {
            "nats": ["train/loss", "val/loss"],
            "bits per dim": ["train/bits_per_dim", "val/bits_per_dim"],
        }
