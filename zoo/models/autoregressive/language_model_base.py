"""Base class of models of text: a tokenizer, likelihoods that compare between tokenizers, and generation."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core.errors import ZooError
from zoo.core.signature import Count, PositiveInt
from zoo.core.space import Space
from zoo.core.spaces import Tokens
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.abilities import require_tokenizer
from zoo.models.autoregressive.base import AutoregressiveModel
from zoo.models.tokenizer_mixin import TokenizerMixin
from zoo.nn.blocks.int4 import int4_or_int8
from zoo.nn.blocks.int8 import Int8Linear, quantize_linear_layers
from zoo.nn.samplers.autoregressive import BLOCK_SIZE, stream_tokens
from zoo.nn.samplers.beam_search import batched_beam_search
from zoo.nn.samplers.constraint import Vocabulary
from zoo.nn.samplers.contrastive import PLAUSIBLE, ContrastiveDecoder
from zoo.nn.samplers.prompt_cache import PromptCache
from zoo.nn.samplers.sampling_params import SamplingParams, parse_sampling
from zoo.nn.samplers.speculative import stream_drafted
from zoo.nn.samplers.text_stream import Completion, TextStreamer, text_streamers

OPTIONS = (  # of `generate`, beside those of sampling
    "max_new_tokens",
    "beams",
    "length_penalty",
    "stop",
    "seed",
    "draft",
    "n_draft",
    "amateur",
    "alpha",
    "amateur_temperature",
)


class LanguageModelBase(TokenizerMixin, AutoregressiveModel):
    """A model of text: a tokenizer, likelihoods that compare between tokenizers, and text generation.

    The settings `temperature` and `top_p`, where a subclass has them, are the defaults of text generation.

    Args:
        spec: what the data looks like; its tokenizer, if it has one, becomes part of the model.
    """

    accepts: ClassVar[tuple[type[Space], ...]] = (Tokens,)
    scored: str = ""  # suffix of metric names where `token_nll` scores a part of the tokens
    prompt_cache: PromptCache | None = None  # see `keep_prompts`

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.load_tokenizer(spec)
        if self.tokenizer is None:
            self.lacks("generate", "token_loss")

    # -- likelihood ------------------------------------------------------------------------------------------

    def token_hits(self, batch: Batch) -> Tensor:
        """Whether the likeliest token is the target, for every scored token (N,)."""
        logits, target = self.logits(batch)
        return (logits.argmax(-1) == target)[target >= 0]

    def token_confidence(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Probability of the likeliest token, and whether it is the target, for every scored token (N,) each."""
        logits, target = self.logits(batch)
        confidence, token = logits[target >= 0].float().softmax(-1).max(-1)
        return confidence, token == target[target >= 0]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nats per scored token."""
        nats, target = self.token_nll(batch)
        return {"loss": nats.sum() / (target >= 0).sum()}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log means over all tokens and all bytes of the split, independent of the batch size."""
        self.log_token_means(*self.token_nll(batch))

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact log-likelihood (B,) in nats of targets y given inputs x; without y, of x as the beginning of a text."""
        if y is None:
            x, y = F.pad(x[:, :-1], (1, 0), value=self.begin), x
        return -self.token_nll(Batch(x, y))[0].sum(1)

    # -- generation ---------------------------------------------------------------------------------------------

    @property
    def end(self) -> int:
        """The token after a text."""
        return self.spec.tokens.vocab_size - 1 if self.tokenizer is None else self.tokenizer.end

    @property
    def vocabulary(self) -> Vocabulary | None:
        """Spelling of the tokens, for constraints."""
        return None if self.tokenizer is None else Vocabulary(tuple(self.tokenizer.pieces), tuple(self.ends))

    @property
    def masks_documents(self) -> bool:
        """Whether attention stays within a text where several are packed into one window."""
        return getattr(self.net, "end", None) is not None

    @property
    def ends(self) -> list[int]:
        """All tokens that end a text."""
        return [self.end] if self.tokenizer is None else self.tokenizer.ends

    @property
    def begin(self) -> int:
        """The token before a text."""
        return self.end if self.tokenizer is None else self.tokenizer.begin

    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Tensor:
        """Sample texts from their beginning: token ids (n, T), padded with the end token.

        Args:
            n: number of texts.
            condition: must be None; `generate` takes prompts.
            generator: source of randomness.
            **options: `max_new_tokens` (None fills the context) and those of `SamplingParams`.

        Raises:
            ZooError: a negative `max_new_tokens`.
        """
        self.check_condition(condition)
        length = options.pop("max_new_tokens", None) or self.spec.size
        if length < 0:
            raise ZooError(f"max_new_tokens={length}: must be at least 0. Choose another, or leave it out.")
        tokens = self.sample_tokens([[self.begin]] * n, length, self.sampling(options), generator)
        ends = torch.isin(tokens, torch.tensor(self.ends, device=tokens.device))
        return tokens.masked_fill(ends.cumsum(1) > 0, self.end)

    def sampling(self, options: dict[str, Any]) -> SamplingParams:
        """Sampling parameters from options; the model's own temperature and top-p are the defaults."""
        own = {name: self.hparams[name] for name in ("temperature", "top_p") if name in self.hparams}
        return parse_sampling(options, OPTIONS, **own)

    def generate(
        self,
        prompts: str | list[str],
        *,
        max_new_tokens: Count | None = None,
        beams: int = 1,
        length_penalty: float | None = None,
        stop: list[str] | tuple[str, ...] = (),
        seed: int | None = None,
        draft: "LanguageModelBase | None" = None,
        n_draft: PositiveInt = 4,
        amateur: "LanguageModelBase | None" = None,
        alpha: float = PLAUSIBLE,
        amateur_temperature: float = 1.0,
        **options: Any,
    ) -> list[Completion]:
        """Continue texts. Every completion has a finish reason.

        Args:
            prompts: one, or a list, of any length; "" begins a text.
            max_new_tokens: None continues until the model ends the text or the context is full ("length").
            beams: more than 1 is beam search, which does not accept sampling options.
            length_penalty: of beam search, see `zoo.nn.samplers.beam_search.batched_beam_search`; None is 1.
            stop: stop sequences and special tokens, which are left out.
            seed: of the sampling; None uses torch's global generator.
            draft: a smaller model of the same tokens, whose drafts are checked; see `zoo.nn.samplers.speculative`.
            n_draft: tokens that it drafts per pass.
            amateur: a smaller model of the same tokens, for contrastive decoding; see `zoo.nn.samplers.contrastive`.
            alpha: of contrastive decoding: least part of the largest probability that a plausible token has.
            amateur_temperature: divides the logits of the amateur.
            **options: those of `zoo.nn.samplers.autoregressive.SamplingParams`, such as temperature (0 is greedy),
                top_p, no_repeat_ngram_size or regex.

        Raises:
            ZooError: options that do not apply together.
        """
        rows = [self.prompt_ids(prompt) for prompt in ([prompts] if isinstance(prompts, str) else prompts)]
        if beams <= 1:
            if length_penalty is not None:
                raise ZooError(f"length_penalty={length_penalty}: needs beam search. Set beams, or leave it out.")
            pens = self.streamers(rows, max_new_tokens, stop)
            self.check_helper("draft", draft)
            self.check_helper("amateur", amateur)
            if amateur is not None and draft is not None:
                raise ZooError("draft: not together with amateur. Leave out one of them.")
            if amateur is None and (alpha, amateur_temperature) != (PLAUSIBLE, 1.0):
                unused = f"alpha={alpha}, amateur_temperature={amateur_temperature}"
                raise ZooError(f"{unused}: need an amateur. Set amateur=RUN, or leave both out.")
            contrast = None if amateur is None else (amateur, alpha, amateur_temperature)
            for _ in self._write(rows, pens, seed, options, BLOCK_SIZE, draft, n_draft, contrast):
                pass
            return [pen.result() for pen in pens]
        if amateur is not None:
            raise ZooError(f"beams={beams}: beam search has no amateur. Leave out amateur, or set beams=1.")
        if draft is not None:
            raise ZooError(f"beams={beams}: beam search does not use a draft. Leave out draft, or set beams=1.")
        asked, plain = asdict(parse_sampling(options, OPTIONS)), asdict(SamplingParams())
        if given := [name for name in plain if asked[name] != plain[name]]:
            raise ZooError(f"beams={beams}: beam search does not sample. Leave out {', '.join(given)}, or set beams=1.")
        pens, penalty = self.streamers(rows, max_new_tokens, stop), 1.0 if length_penalty is None else length_penalty

        def search() -> Iterator[list[Completion]]:
            net, begun = self.prepare(rows)
            yield batched_beam_search(net, begun, pens, beams=beams, length_penalty=penalty, device=self.device)

        return next(self._in_eval_mode(search))

    def check_helper(self, name: str, helper: Any) -> None:
        """Check that another model may help to generate: it reads the same tokens on the same device.

        Raises:
            ZooError: it does not.
        """
        if helper is None:
            return
        if not isinstance(helper, LanguageModelBase):
            raise ZooError(f"{name}: not a language model. Use one that was trained with the same tokenizer.")
        mine, theirs = self.spec.tokens, helper.spec.tokens  # their lengths may differ
        if (mine.tokenizer, mine.vocab_size) != (theirs.tokenizer, theirs.vocab_size):
            raise ZooError(f"{name}: has another tokenizer. Use a model that was trained with the same one.")
        if helper.device != self.device:
            raise ZooError(f"{name}: is on {helper.device}, and the model on {self.device}. Move one of them.")

    def stream(
        self,
        prompt: str,
        *,
        max_new_tokens: Count | None = None,
        stop: list[str] | tuple[str, ...] = (),
        seed: int | None = None,
        **options: Any,
    ) -> Iterator[str]:
        """Yield the text of `generate([prompt])[0]` piece by piece."""
        rows = [self.prompt_ids(prompt)]
        pens = self.streamers(rows, max_new_tokens, stop)
        return (text for _, text in self._write(rows, pens, seed, options, 1))

    def streamers(
        self, rows: list[list[int]], limit: int | None, stop: list[str] | tuple[str, ...]
    ) -> list[TextStreamer]:
        """New streamers of the texts after these prompts, with at most `limit` tokens each."""
        return self._streamers([len(row) for row in rows], limit, stop)

    def _streamers(
        self, lengths: list[int], limit: int | None, stop: list[str] | tuple[str, ...]
    ) -> list[TextStreamer]:
        """New streamers for prompts of these lengths."""
        special = [] if isinstance(stop, str) else [i for s in stop if (i := self.tokenizer.special_id(s)) is not None]
        return text_streamers(lengths, self.spec.size, self.tokenizer.pieces, self.ends, stop, limit, special)

    def prompt_ids(self, prompt: str) -> list[int]:
        """Token ids of a prompt as the model reads it."""
        return require_tokenizer(self).encode_prompt(prompt)

    def _write(
        self,
        rows: list[list[int]],
        pens: list[TextStreamer],
        seed: int | None,
        options: dict[str, Any],
        every: int,
        draft: "LanguageModelBase | None" = None,
        n_draft: int = 4,
        contrast: "tuple[LanguageModelBase, float, float] | None" = None,
    ) -> Iterator[tuple[int, str]]:
        generator, how = None if seed is None else torch.Generator().manual_seed(seed), self.sampling(options)

        def steps() -> Iterator[tuple[int, str]]:
            net, begun = self.prepare(rows)
            if self.prompt_cache is not None and net is self.prompt_cache.model:
                net = self.prompt_cache
            if contrast is not None:
                net = ContrastiveDecoder(net, contrast[0].prepare(rows)[0], *contrast[1:])
            if draft is not None:
                both: tuple[Any, Any] = net, draft.net
                yield from stream_drafted(
                    *both, begun, pens, how, n_draft=n_draft, generator=generator, device=self.device
                )
                return
            yield from stream_tokens(
                net, begun, pens, how, generator=generator, block_size=every, device=self.device, begin=self.begin,
                vocabulary=self.vocabulary if how.pattern else None,
            )  # fmt: skip

        found, helper = self._in_eval_mode(steps), draft if contrast is None else contrast[0]
        return found if helper is None else helper._in_eval_mode(lambda: found)

    def keep_prompts(self) -> bool:
        """Keep the state of the last text, so that a prompt which begins in the same way is evaluated from there on.

        For one text at a time. Returns whether the network can do it: it must be able to remove its last tokens.
        """
        if hasattr(self.net, "rewind") and getattr(self.net, "end", None) is None:
            self.prompt_cache = PromptCache(self.net)
        return self.prompt_cache is not None

    def quantize(self, bits: int = 8) -> "LanguageModelBase":
        """Convert the linear layers to 8-bit or 4-bit weights in place, for generation on a processor.

        The model cannot be trained or saved afterwards. See `zoo.nn.blocks.int8` and `zoo.nn.blocks.int4`.

        Args:
            bits: 8 loses less, 4 takes half the memory.

        Raises:
            ZooError: other bits, or a network without linear layers.
        """
        if bits not in (4, 8):
            raise ZooError(f"bits={bits}: weights have 4 or 8 bits. Choose one of them.")
        if not quantize_linear_layers(self.net, Int8Linear if bits == 8 else int4_or_int8):
            raise ZooError(f"{self.display_name}: its network does not have linear layers to quantise.")
        return self

    def charts(self) -> dict[str, list[str]]:
        """Loss, and bits per byte, which compares between tokenizers."""
        return {"loss": ["train/loss", "val/loss"], "bits per byte": ["val/bits_per_byte"]}
