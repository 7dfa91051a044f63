"""Abilities: what a model can do beyond a loss, as protocols; see `zoo.models.ability`."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from zoo.core.errors import ZooError
from zoo.core.space import Space
from zoo.data.batch import Batch
from zoo.models.ability import ability
from zoo.models.results import Curve, Likelihood, Visual
from zoo.nn.distributions.likelihoods import LikelihoodKind
from zoo.nn.samplers.exportable import ExportableSampler


@ability("sample", "sample")
class SupportsSampling(Protocol):
    """Draws samples."""

    def sample(
        self, n: int, *, condition: Tensor | None = None, generator: torch.Generator | None = None, **options: Any
    ) -> Tensor:
        """Draw n samples in data space, (n, *shape); equally seeded generators give equal samples.

        Args:
            n: number of samples.
            condition: class labels (n,) for conditional models; None draws classes at random.
            generator: source of all randomness; None is torch's global one. `seed=1` is short for a generator with
                this seed, also in the other methods of abilities; `zoo sample --seed 1` draws the same samples.
            **options: keyword-only parameters of the model's own method.
        """


@ability("likelihood", "likelihood bound")
class SupportsLikelihood(Protocol):
    """Scores data."""

    def likelihoods(self, x: Tensor, y: Tensor | None = None, *, k: int = 1) -> tuple[Likelihood, ...]:
        """Likelihoods of samples x (B, *shape) with labels y (B,).

        Args:
            x: data.
            y: class labels of a conditional model.
            k: importance samples in the bound of a latent-variable model.
        """


@ability("log_prob", "exact likelihood")
class SupportsLogProb(Protocol):
    """Gives exact log-likelihoods."""

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Log-likelihood in nats per sample, (B,)."""


class ExactLikelihood:
    """Offers `log_prob` as the one likelihood, which is exact."""

    likelihood_kind: LikelihoodKind

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Log-likelihood in nats per sample, (B,)."""
        raise NotImplementedError

    def likelihoods(self, x: Tensor, y: Tensor | None = None, *, k: int = 1) -> tuple[Likelihood, ...]:
        """The exact likelihood; `k` has no effect."""
        return (Likelihood(self.log_prob(x, y), self.likelihood_kind, exact=True),)


@ability("latents", "reconstruct")
class SupportsLatents(Protocol):
    """Encodes samples as latent vectors, and decodes them."""

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Data (B, *shape) -> latents (B, D), without randomness."""

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latents (B, D) -> data (B, *shape)."""

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Data -> data, through the latent, without randomness."""


@ability("posterior", "")
class SupportsPosterior(Protocol):
    """Gives a normal distribution over the latent of each sample."""

    def posterior(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation, each (B, D)."""


@ability("first_stage", "first stage")
class SupportsFirstStage(Protocol):
    """Offers its latents as data that another model learns: `first_stage=RUN`."""

    def latent_space(self) -> Space:
        """The space of the latents, as a data set would have it."""

    def to_latent(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Data (B, *shape) -> latents (B, *latent shape), without randomness."""

    def from_latent(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latents (B, *latent shape) -> data (B, *shape)."""


@ability("latent_draws", "")
class SupportsLatentDraws(Protocol):
    """Draws the latents of data, with the terms of a bound that a prior completes."""

    def draw_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Draw z ~ q(z | x) for data (B, *shape): latents (B, *latent shape), and log p(x | z) - log q(z | x) in nats.

        The values (B,) belong to the scale of the latents: with log p(z) of a prior, they are a bound on log p(x).
        """


@ability("codebook", "")
class SupportsCodebook(Protocol):
    """Counts the use of its codebook."""

    def code_counts(self, x: Tensor) -> Tensor:
        """Counts of each code over data (B, *shape), for each of the codebooks, (depth, K)."""


@ability("prior", "")
class SupportsPrior(Protocol):
    """Draws latents from the prior."""

    def sample_prior(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n latents, (n, D)."""


@ability("interpolate", "interpolate")
class SupportsInterpolation(Protocol):
    """Walks between samples through the latent space.

    A model that encodes data has the keyword `between`: the first ends, then the last ones, (2 n, *shape).
    """

    def interpolate(self, n: int, steps: int, *, generator: torch.Generator | None = None) -> Tensor:
        """n walks of so many steps: data (n, steps, *shape)."""


@ability("forecast", "forecast")
class SupportsForecasting(Protocol):
    """Continues series."""

    def forecast(
        self,
        history: Tensor,
        horizon: int,
        n: int = 100,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """n continuations of each history (B, H, D), (B, n, horizon, D); H may differ from that of the training.

        Args:
            history: the past; NaN where a value is missing, if the model reads such data.
            horizon: steps to add.
            n: joint samples of the future of each series.
            condition: covariates of past and future (B, H + horizon, C), if the model has them.
            generator: source of randomness.
        """


@ability("embed", "embed")
class SupportsEmbedding(Protocol):
    """Embeds items as vectors."""

    def embed(self, items: Any) -> Tensor:
        """Items (N) -> vectors (N, D)."""


@ability("embed_data", "embed data")
class SupportsDataEmbedding(Protocol):
    """Embeds data as vectors."""

    def embed_data(self, x: Tensor) -> Tensor:
        """Data (B, *shape) -> vectors (B, D)."""


@ability("word_vectors", "word vectors")
class SupportsWordVectors(Protocol):
    """Gives a vector to each word of a vocabulary."""

    words: list[str]  # in the order of the vectors

    def word_vectors(self) -> Tensor:
        """Vectors of all words (N, D)."""


@ability("recommend", "recommend items")
class SupportsRecommendation(Protocol):
    """Ranks items for a user."""

    def score_items(self, x: Tensor) -> Tensor:
        """Interactions (B, I) -> scores of all items (B, I), higher is better."""

    def recommend(self, items: list[str], k: int = 10) -> list[tuple[str, float]]:
        """The k best other items for a user of these items, each with its score, best first."""


@ability("export", "")
class SupportsExport(Protocol):
    """Exports its sampler to programs that do not have this package."""

    def export_module(self) -> ExportableSampler:
        """The deterministic part of the sampler, as a module whose inputs are the random numbers."""


@ability("generate", "continue text")
class SupportsTextGeneration(Protocol):
    """Continues text."""

    tokenizer: Any

    def generate(self, prompts: list[str], **options: Any) -> list[Any]:
        """One completion for each prompt; see `zoo.nn.samplers.autoregressive`."""


@ability("fill", "fill in masks")
class SupportsMaskFilling(Protocol):
    """Restores masked tokens of a text."""

    mark: str  # stands for one masked token

    def fill(self, texts: list[str], **options: Any) -> list[str]:
        """The texts, each mark replaced."""


@ability("attention", "")
class SupportsAttentionMaps(Protocol):
    """Shows its attention weights."""

    def attention(self, batch: Batch) -> dict[str, Tensor]:
        """Weights (B, H, T, S) of each layer by its name, first to last: of position T for position S."""


@ability("token_loss", "")
class SupportsTokenLoss(Protocol):
    """Gives a loss for each token of a text."""

    tokenizer: Any

    def token_nll(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Nats of every target token (B, T), zero where it is not scored; and the targets, negative there."""


@ability("token_accuracy", "")
class SupportsTokenAccuracy(Protocol):
    """Predicts a most likely token for every position."""

    def token_hits(self, batch: Batch) -> Tensor:
        """Whether the most likely token is the right one, bool (N,), for all scored tokens."""


@ability("token_confidence", "")
class SupportsTokenConfidence(Protocol):
    """Gives the probability of its most likely tokens."""

    def token_confidence(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Probability of the most likely token, and whether it is the right one, (N,) each, for all scored tokens."""


@ability("token_sampling", "")
class SupportsTokenSampling(Protocol):
    """Samples one token after another, with a cache."""

    context: int
    net: Any

    def sample_tokens(self, rows: list[list[int]], length: int, params: Any, generator: Any) -> Tensor:
        """Sample `length` tokens after each row: (n, length)."""


@ability("answer_rewards", "")
class SupportsAnswerRewards(Protocol):
    """Gives a reward to each of two answers."""

    def answer_rewards(self, batch: Batch) -> Tensor:
        """Rewards (B, 2) of the chosen and the rejected answer of each pair (B, 2, T)."""


@ability("adversarial", "")
class SupportsAdversarialLoss(Protocol):
    """Trains a generator against a discriminator, and logs logits and accuracy of the discriminator."""

    def discriminator_saturates(self) -> bool:
        """Whether the generator's gradient vanishes where the discriminator separates all samples."""


@ability("warm_start", "")
class SupportsWarmStart(Protocol):
    """Chooses the weights that `init_from` sets; the default is all of the pretrained component, or of the model."""

    def pretrained_state(self) -> dict[str, Tensor]:
        """Weights that `init_from` sets, by their names in the other model."""

    def load_pretrained(self, weights: Mapping[str, Tensor]) -> None:
        """Set them."""


@ability("merge", "")
class SupportsMerging(Protocol):
    """Contains another model that it fine-tunes."""

    def merged(self) -> Any:
        """The fine-tuned model, adapters merged into its weights. Do not use this model afterwards."""


@ability("visuals", "")
class SupportsVisuals(Protocol):
    """Shows more than samples."""

    def visuals(self, batch: Batch) -> Iterator[Visual]:
        """Yield visuals, given held-out data."""


@ability("curves", "")
class SupportsCurves(Protocol):
    """Shows curves, such as a schedule."""

    def curves(self) -> list[Curve]:
        """Curves for one picture."""


def require_tokenizer(model: Any) -> Any:
    """The tokenizer of a model.

    Raises:
        ZooError: there is none.
    """
    if model.tokenizer is None:
        raise ZooError(
            f"{model.registered_name} of {model.spec}: has no tokenizer, so it does not read text. Call sample(), or "
            "put the tokenizer.json of a pretrained model into its folder."
        )
    return model.tokenizer
