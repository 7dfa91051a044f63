"""Word2vec: vectors of words that predict the words around them."""

from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ConfigError, ZooError
from zoo.core.registry import register
from zoo.core.signature import NonNegative, PositiveInt
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.abilities import require_tokenizer
from zoo.models.embedding.base import WordEmbedding
from zoo.models.embedding.windows import Windows, context_windows
from zoo.nn.blocks.subwords import subword_rows
from zoo.nn.losses.logistic import huffman_codes, logistic_gradients, logistic_loss

SEED = 31_000_000  # of windows and noise in validation
NOISE = 16  # noise words of a chunk, shared by its centers


@register("model", "word2vec")
class Word2Vec(WordEmbedding):
    """Word2vec: skip-gram or continuous bag of words, with negative sampling or hierarchical softmax.

    Words are removed at random by their frequency, and each center has a random window. With negative sampling, noise
    words are shared by the centers of a chunk, and each has the weight of the separate draws that it replaces.
    The expected gradient is equal, and the products are those of matrices. Gradient descent updates the rows of a
    block of chunks at once. `loss` is the same objective with a graph, in nats per predicted word.

    With `max_ngram`, the vector of a word is the mean over its own and those of its n-grams of letters (fastText). A
    word that was not in the training text then has the mean of its n-grams.

    Args:
        spec: what the data looks like.
        dim: of the vectors.
        architecture: skipgram predicts each context from the center; cbow the center from the mean of the contexts.
        objective: of a prediction.
        window: most words between center and context.
        negatives: noise words for each pair.
        noise_power: noise has the distribution of words to this power.
        subsample: words that are more frequent than this share are removed at random; 0 keeps all.
        lr: learning rate of gradient descent, which falls linearly.
        min_lr: at the end.
        min_ngram: fewest letters of an n-gram, the marks of the two ends of a word included.
        max_ngram: most letters; 0 for words alone. Data without a tokenizer do not have letters.
        buckets: rows of n-grams, which are hashed.
        block: chunks of 32 centers that are updated at once.

    Raises:
        ConfigError: `min_lr` above `lr`, or `max_ngram` below `min_ngram`.
    """

    paper = "Mikolov et al. 2013 (arXiv:1301.3781, arXiv:1310.4546)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        dim: PositiveInt = 100,
        architecture: Literal["skipgram", "cbow"] = "skipgram",
        objective: Literal["negative_sampling", "hierarchical_softmax"] = "negative_sampling",
        window: PositiveInt = 5,
        negatives: PositiveInt = 5,
        noise_power: NonNegative = 0.75,
        subsample: Annotated[float, Interval(ge=0, le=1)] = 1e-3,
        lr: NonNegative = 0.025,
        min_lr: NonNegative = 1e-4,
        min_ngram: PositiveInt = 3,
        max_ngram: Annotated[int, Ge(0)] = 0,
        buckets: PositiveInt = 50_000,
        block: PositiveInt = 16,
    ) -> None:
        super().__init__(spec)
        if min_lr > lr:
            raise ConfigError(f"model.min_lr={min_lr}: above model.lr={lr}. Give at most {lr}.")
        if 0 < max_ngram < min_ngram:
            raise ConfigError(f"model.max_ngram={max_ngram}: below min_ngram={min_ngram}. Give at least that, or 0.")
        self.max_ngram = max_ngram
        self.dim, self.window, self.negatives, self.noise_power = dim, window, negatives, noise_power
        self.skipgram, self.sampled = architecture == "skipgram", objective == "negative_sampling"
        self.subsample, self.lr, self.min_lr, self.block = subsample, lr, min_lr, block
        size = spec.tokens.vocab_size
        rows = size
        if max_ngram:
            spelled = ["" if self.tokenizer is None or i in self.specials else self.spelling(i) for i in range(size)]
            grams = self.grams(spelled)  # (V, G)
            rows += buckets + 1  # the last one is that of padding
            table = torch.cat([torch.arange(size)[:, None], torch.where(grams < 0, rows - 1, grams + size)], 1)
            self.register_buffer("subwords", table, persistent=False)
            self.subwords: Tensor  # rows of each word (V, 1 + G)
        self.input = nn.Parameter((torch.rand(rows, dim) - 0.5) / dim)
        self.output = nn.Parameter(torch.zeros(size if self.sampled else size - 1, dim))
        self.on_counted()

    def vectors(self) -> Tensor:
        """The input vector of every token (V, D)."""
        return self.read(torch.arange(self.spec.tokens.vocab_size, device=self.device))

    def grams(self, words: list[str]) -> Tensor:
        """Buckets of the n-grams of words, int64 (N, G), -1 after the last one."""
        return subword_rows(words, self.hparams["min_ngram"], self.max_ngram, self.hparams["buckets"])

    def read(self, tokens: Tensor) -> Tensor:
        """Input vectors (..., D) of tokens (...)."""
        if not self.max_ngram:
            return F.embedding(tokens, self.input)
        rows = self.subwords[tokens.flatten()]  # (N, 1 + G)
        mean = F.embedding_bag(rows, self.input, mode="mean", padding_idx=len(self.input) - 1)
        return mean.view(*tokens.shape, -1)

    def descend(self, tokens: Tensor, gradient: Tensor, lr: float) -> None:
        """Subtract lr times the gradient (..., D) from the input vectors of tokens (...), in place."""
        at, change = tokens.flatten(), gradient.flatten(0, -2)  # (N), (N, D)
        if self.max_ngram:
            rows = self.subwords[at]  # (N, 1 + G)
            real = rows < len(self.input) - 1
            change = (change / real.sum(1, keepdim=True)).repeat_interleave(real.sum(1), 0)
            at = rows[real]
        self.input.index_add_(0, at, change, alpha=-lr)

    def embed_one(self, text: str, table: Tensor) -> Tensor:
        """Vector (D,) of a text; that of one unseen word is the mean of its n-grams."""
        if not self.max_ngram or any(self.is_word[i] for i in require_tokenizer(self).encode(text)):
            return super().embed_one(text, table)
        grams = self.grams([text.strip().lower()])[0]
        if not len(grams):
            raise ZooError(f"text={text!r}: too short for n-grams of {self.hparams['min_ngram']} letters. Use others.")
        return self.input[grams.to(self.device) + len(self.is_word)].mean(0)

    # -- distributions of words --------------------------------------------------------------------------------

    def on_counted(self) -> None:
        """Build the tree of the hierarchical softmax: frequent words are near the root."""
        if not self.sampled:
            self.nodes, self.turns = huffman_codes(self.counts.clamp(min=1).tolist())

    def _load_from_state_dict(self, *given: Any, **named: Any) -> None:
        super()._load_from_state_dict(*given, **named)
        self.on_counted()

    def keep_prob(self) -> Tensor:
        """Probability of each token to take part (V,): (sqrt(f / t) + 1) t / f for a share f of the text.

        The formula is that of the published program; the paper has sqrt(t / f).
        """
        share = self.counts / self.counts.sum().clamp(min=1)
        ratio = self.subsample / share.clamp(min=1e-12)  # (V,)
        return (ratio.sqrt() + ratio).clamp(max=1) if self.subsample else torch.ones_like(share)

    def noise_prob(self) -> Tensor:
        """Probability of each token as a noise word (V,); all words are equal before they are counted."""
        words = self.is_word * torch.where(self.counts.any(), self.counts, 1)
        powered = words.double() ** self.noise_power * self.is_word
        return powered / powered.sum()

    # -- one block of chunks -------------------------------------------------------------------------------------

    def windows(self, batch: Batch, generator: torch.Generator | None = None) -> Windows:
        """Pairs of a batch, with random windows, after random removal of frequent words."""
        tokens, is_word = self.words_of(batch)
        uniform, reach = torch.rand(2, *tokens.shape, generator=generator).to(tokens.device)
        keep = is_word & (uniform < self.keep_prob()[tokens])
        reach = (reach * self.window).long().clamp(max=self.window - 1) + 1
        return context_windows(tokens, keep, self.ends_of(batch), reach, self.window)

    def noise(self, w: Windows, generator: torch.Generator | None = None) -> Tensor:
        """Noise words of each chunk, int64 (M, K); none for the hierarchical softmax."""
        drawn = torch.rand(len(w.centers), NOISE if self.sampled else 0, generator=generator).to(self.device)
        mass = self.noise_prob().cumsum(0)
        return torch.searchsorted(mass, drawn * mass[-1], right=True).clamp(max=len(mass) - 1)

    def sources(self, w: Windows) -> tuple[Tensor, Tensor | None]:
        """Words whose vectors predict (M, S), and for bags of words their shares in each prediction (M, C, S)."""
        if self.skipgram:
            return w.centers, None
        return w.contexts, (w.pairs / w.n.clamp(min=1)[..., None]).to(self.input.dtype)

    def targets(self, w: Windows, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of `output` to tell apart (M, Q), labels (M or 1, 1, Q), and weights (M, C, Q); 0 leaves a pair out."""
        words, weights, n = w.contexts, w.pairs, w.n
        if not self.skipgram:
            words, n = w.centers, (w.n > 0).float()
            weights = torch.diag_embed(n)
        if self.sampled:
            k = noise.shape[1]
            shared = (n * (self.negatives / k))[..., None].expand(-1, -1, k)  # (M, C, K)
            labels = torch.ones(words.shape[1] + k, device=words.device)
            labels[-k:] = 0
            return torch.cat([words, noise], 1), labels[None, None], torch.cat([weights, shared], 2)
        path, turns = self.nodes.to(words.device)[words], self.turns.to(words.device)[words]  # (M, Q, L)
        weights = (weights[..., None] * (path >= 0)[:, None]).flatten(2)
        return path.clamp(min=0).flatten(1), 1.0 - turns.flatten(1)[:, None], weights

    def loss(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Nats per predicted word, with its noise words."""
        w = self.windows(batch, generator)
        (sources, bags), (rows, labels, weights) = self.sources(w), self.targets(w, self.noise(w, generator))
        u = self.read(sources) if bags is None else bags @ self.read(sources)  # (M, C, D)
        predicted = w.n.sum() if self.skipgram else (w.n > 0).sum()
        return {"loss": logistic_loss(u, F.embedding(rows, self.output), labels, weights) / predicted.clamp(min=1)}

    def update(self, w: Windows, noise: Tensor, lr: float) -> None:
        """One step of gradient descent on the sum over the pairs of a block, in place."""
        (sources, bags), (rows, labels, weights) = self.sources(w), self.targets(w, noise)
        u = self.read(sources) if bags is None else bags @ self.read(sources)
        du, dv = logistic_gradients(u, F.embedding(rows, self.output), labels, weights)
        self.descend(sources, du if bags is None else bags.transpose(1, 2) @ du, lr)
        self.output.index_add_(0, rows.flatten(), dv.flatten(0, 1), alpha=-lr)

    # -- training --------------------------------------------------------------------------------------------

    def train_on(self, batch: Batch, lr: float) -> None:
        """Update block after block of a batch."""
        w = self.windows(batch)
        w = w.select(w.n.sum(1) > 0)
        noise = self.noise(w)
        for first in range(0, len(noise), self.block):
            part = slice(first, first + self.block)
            self.update(w.select(part), noise[part], lr)

    def on_fit_start(self) -> None:
        """Refuse several processes, whose vectors would differ.

        Raises:
            ConfigError: there are several.
        """
        super().on_fit_start()
        if self.trainer.world_size > 1:
            raise ConfigError(
                f"trainer.devices={self.trainer.world_size}: {self.display_name} updates its vectors in one process. "
                f"Set trainer.devices=1."
            )

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Update in place, at a learning rate that falls linearly; there is no optimizer."""
        with torch.no_grad():
            if self.is_logging_step:
                self.log_terms(self.loss(batch, torch.Generator().manual_seed(SEED + batch_idx)))
            done = self.step / max(self.total_steps, 1)
            self.train_on(batch, self.lr + (self.min_lr - self.lr) * done)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss with the same windows and noise at every validation."""
        self.log_epoch_mean(
            {f"val/{k}": v for k, v in self.loss(batch, torch.Generator().manual_seed(SEED + batch_idx)).items()},
            len(batch),
        )

    def configure_optimizers(self) -> None:
        """None: rows are updated in place."""

    def modules_to_compile(self) -> list[nn.Module]:
        """None."""
        return []
