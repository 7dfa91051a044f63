"""Hidden Markov models of vectors over time, and of text."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from zoo.core.registry import register
from zoo.core.signature import Fraction, NonNegative, Positive, PositiveInt
from zoo.core.spaces import ABSENT, Image
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.autoregressive.language_model_base import LanguageModelBase
from zoo.models.baselines.base import Density, Fitted
from zoo.nn.distributions.hidden_markov import Categorical, GaussianMixtures, HiddenMarkov

Topology = Literal["ergodic", "left_right"]


@register("model", "hmm")
class HMM(Density):
    """Hidden Markov model with a Gaussian mixture in each state, fitted by Baum-Welch.

    The frames of an image are its rows, from top to bottom; those of a vector are its values. Images get normal noise:
    a value that is equal in all training images has an infinite density. Before fitting, frames are standard normal.

    Args:
        spec: what the data looks like.
        n_states: hidden states.
        n_components: Gaussians with diagonal covariances in each state.
        topology: ergodic for any transition; left_right for the same state or the next one.
        iterations: most steps of Baum-Welch.
        min_variance: lower bound of all variances.
        noise: standard deviation of the noise on images.
        max_samples: most training samples.
        seed: of the first parameters and of the noise.
    """

    paper = "Rabiner 1989 (Proceedings of the IEEE 77); Baum et al. 1970 (Ann. Math. Statist. 41)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        n_states: PositiveInt = 8,
        n_components: PositiveInt = 1,
        topology: Topology = "ergodic",
        iterations: PositiveInt = 50,
        min_variance: Positive = 1e-3,
        noise: NonNegative = 0.05,
        max_samples: PositiveInt = 10_000,
        seed: int = 0,
    ) -> None:
        super().__init__(spec)
        self.fit_on, self.std = max_samples, noise if isinstance(spec.x, Image) else 0.0
        self.iterations, self.seed = iterations, seed
        emission = GaussianMixtures(
            n_states, n_components, self.frames(torch.zeros(1, spec.size)).shape[2], min_variance
        )
        self.density = HiddenMarkov(emission, n_states, topology == "left_right")

    def frames(self, x: Tensor) -> Tensor:
        """Data (B, *shape) or vectors (B, D) -> frames over time (B, T, D)."""
        if not isinstance(self.spec.x, Image):
            return x.view(len(x), -1, 1)
        return x.view(len(x), *self.spec.shape).transpose(1, 2).flatten(2)  # (B, H, C W)

    def fit(self, data: Tensor) -> None:
        """Baum-Welch on (N, D)."""
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(data.shape, generator=generator) if self.std else 0.0
        self.density.fit(self.frames(data + self.std * noise), iterations=self.iterations, seed=self.seed)

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact log density, nats (B,)."""
        return self.density.log_prob(self.frames(x)).float()

    def states(self, x: Tensor) -> Tensor:
        """Likeliest state of each frame of data (B, *shape): int64 (B, T)."""
        return self.density.viterbi(self.frames(x))[0]

    def sample(self, n: int, *, condition: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Draws (n, *shape), clamped to [0, 1] for images."""
        self.check_condition(condition)
        frames = self.density.sample(n, self.frames(torch.zeros(1, self.spec.size)).shape[1], generator)[0].float()
        if isinstance(self.spec.x, Image):
            channels, _, width = self.spec.shape
            frames = frames.unflatten(2, (channels, width)).transpose(1, 2)  # (n, C, H, W)
        return self.shaped(frames.flatten(1))


class HMMDecoder(nn.Module):
    """Next tokens by the distribution of the hidden state; its state is the filtered distribution (B, S).

    Args:
        chain: a hidden Markov model with categorical emissions.
        context: most tokens of a window.
    """

    def __init__(self, chain: HiddenMarkov, context: int) -> None:
        super().__init__()
        self.chain, self.context = chain, context

    def logits(self, ahead: Tensor) -> Tensor:
        """Log-probabilities of tokens (B, V), given those of the states before they are read (B, S)."""
        return (ahead[..., None] + self.chain.emission.log_probs).logsumexp(1)

    def read(self, ahead: Tensor, tokens: Tensor) -> Tensor:
        """Log-probabilities of the next states (B, S), after tokens (B,) are read; negative ones change nothing."""
        seen = (ahead + self.chain.emission.log_probs.T[tokens.clamp(min=0)]).log_softmax(1)
        return torch.where(tokens[:, None] < 0, ahead, (seen[..., None] + self.chain.log_transition).logsumexp(1))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T) -> log-probabilities of the next ones (B, T, V)."""
        ahead, found = self.chain.log_start.expand(len(tokens), -1), []
        for column in tokens.T:
            ahead = self.read(ahead, column)
            found.append(self.logits(ahead))
        return torch.stack(found, 1)

    def prefill(self, tokens: Tensor, padding: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Process prompts (B, T), whose first `padding` (B,) tokens are padding: next logits (B, V), and a state."""
        if padding is not None:
            index = torch.arange(tokens.shape[1], device=tokens.device)
            tokens = tokens.masked_fill(index < padding[:, None], ABSENT)
        ahead = self.chain.log_start.expand(len(tokens), -1)
        for column in tokens.T:
            ahead = self.read(ahead, column)
        return self.logits(ahead), {"ahead": ahead}

    def step(self, tokens: Tensor, state: dict[str, Tensor]) -> Tensor:
        """Append one token per row (B,): next logits (B, V)."""
        state["ahead"] = self.read(state["ahead"], tokens)
        return self.logits(state["ahead"])

    def reorder(self, state: dict[str, Tensor], rows: Tensor) -> None:
        """Replace row b of the state by row `rows[b]`."""
        state["ahead"] = state["ahead"][rows]

    def merge(self, state: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Tensor]:
        """State of the rows of both."""
        return {"ahead": torch.cat([state["ahead"], other["ahead"]])}


@register("model", "hmm_text")
class TextHMM(LanguageModelBase, Fitted):
    """Hidden Markov model of text, fitted by Baum-Welch.

    Each state has a distribution of tokens. Windows are independent sequences that begin with their first token. Before
    fitting, all tokens are equally likely.

    Args:
        spec: what the data looks like.
        n_states: hidden states.
        iterations: most steps of Baum-Welch.
        max_windows: most training windows.
        pseudo_count: added to the expected count of each token in each state. Without it, texts with tokens of no
            training window would be impossible.
        seed: of the first parameters.
        temperature: default of text generation; 0 is greedy.
        top_p: default of text generation.
    """

    paper = "Rabiner 1989 (Proceedings of the IEEE 77); Baum et al. 1970 (Ann. Math. Statist. 41)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        n_states: PositiveInt = 16,
        iterations: PositiveInt = 50,
        max_windows: PositiveInt = 2000,
        pseudo_count: Positive = 0.01,
        seed: int = 0,
        temperature: NonNegative = 1.0,
        top_p: Fraction = 1.0,
    ) -> None:
        super().__init__(spec)
        self.fit_on, self.iterations, self.seed = max_windows, iterations, seed
        emission = Categorical(n_states, spec.tokens.vocab_size, pseudo_count)
        self.net: Any = HMMDecoder(HiddenMarkov(emission, n_states), spec.size)

    def statistics(self, batch: Batch) -> Tensor:
        """Windows with the token that follows each, negative after an end, int32 (B, T + 1)."""
        return torch.cat([batch.x[:, :1], batch.y], dim=1).int()

    def fit(self, data: Tensor) -> None:
        """Baum-Welch on windows (N, T + 1)."""
        real = (data >= 0).cumprod(1).bool()
        self.net.chain.fit(data.clamp(min=0).long(), real, iterations=self.iterations, seed=self.seed)

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Log-probabilities of every target token (B, T, V), and the targets (B, T)."""
        return self.net(batch.x), batch.y
