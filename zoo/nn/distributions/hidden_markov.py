"""Hidden Markov models in log space, batched over sequences (Rabiner 1989, Proceedings of the IEEE 77)."""

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.distributions.mixtures import categorical_from_uniform
from zoo.nn.samplers.noise import fork, normal

CHUNK = 256  # sequences of one E-step, for memory

Statistics = tuple[Tensor, ...]  # sums over frames


class Emission(Protocol):
    """Distribution of a frame in each of S states."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Frames (B, T, ...) -> log-probabilities or log-densities (B, T, S)."""

    def start(self, frames: Tensor, states: Tensor, generator: torch.Generator) -> None:
        """First parameters, from frames (N, ...) and a guess of their states (N,)."""

    def statistics(self, x: Tensor, posterior: Tensor) -> Statistics:
        """Sums over frames (B, T, ...), weighted by the posterior of the states (B, T, S)."""

    def maximise(self, sums: Statistics) -> None:
        """Set the parameters that maximise the expected log-likelihood."""

    def sample(self, states: Tensor, generator: torch.Generator | None) -> Tensor:
        """Frames (N, ...) of states (N,)."""


class Categorical(nn.Module):
    """Symbols 0 to V - 1; frames are int64 (B, T).

    Args:
        n_states: S.
        n_symbols: V.
        pseudo_count: added to each expected count, so that symbols of no training sequence are possible.
    """

    log_probs: Tensor  # (S, V)

    def __init__(self, n_states: int, n_symbols: int, pseudo_count: float = 0.0) -> None:
        super().__init__()
        self.pseudo_count = pseudo_count
        table = torch.full((n_states, n_symbols), -math.log(n_symbols), dtype=torch.float64)
        self.register_buffer("log_probs", table)

    def log_prob(self, x: Tensor) -> Tensor:
        """Symbols (B, T) -> (B, T, S)."""
        return self.log_probs.T[x]

    def start(self, frames: Tensor, states: Tensor, generator: torch.Generator) -> None:
        """Frequencies of all symbols, changed at random in each state."""
        counts = torch.bincount(frames, minlength=self.log_probs.shape[1]).double() + 1e-3
        noise = exponential(self.log_probs.shape, generator).to(counts.device)
        self.log_probs.copy_((counts * noise).log().log_softmax(1))

    def statistics(self, x: Tensor, posterior: Tensor) -> Statistics:
        """Expected counts (V, S)."""
        counts = posterior.new_zeros(self.log_probs.shape[1], posterior.shape[2])
        return (counts.index_add_(0, x.flatten(), posterior.flatten(0, 1)),)

    def maximise(self, sums: Statistics) -> None:
        """Relative frequencies; a state without counts keeps its own."""
        counts = sums[0].T + self.pseudo_count
        total = counts.sum(1, keepdim=True)
        self.log_probs.copy_(torch.where(total > 0, (counts / total.clamp(min=1e-300)).log(), self.log_probs))

    def sample(self, states: Tensor, generator: torch.Generator | None) -> Tensor:
        """Symbols (N,)."""
        return draw(self.log_probs.exp()[states], generator)


class GaussianMixtures(nn.Module):
    """A mixture of K Gaussians with diagonal covariances in each state; frames are real (B, T, D)."""

    log_weights: Tensor  # (S, K)
    means: Tensor  # (S, K, D)
    variances: Tensor  # (S, K, D)

    def __init__(self, n_states: int, n_components: int, dim: int, min_variance: float) -> None:
        super().__init__()
        self.min_variance, shape = min_variance, (n_states, n_components, dim)
        weights = torch.full(shape[:2], -math.log(n_components), dtype=torch.float64)
        self.register_buffer("log_weights", weights)
        self.register_buffer("means", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("variances", torch.ones(shape, dtype=torch.float64))

    def components(self, x: Tensor) -> Tensor:
        """Joint log-density of frame and component (B, T, S, K)."""
        center = self.means.mean((0, 1))  # keeps the squares below small
        x, means, precision = x.double() - center, (self.means - center).flatten(0, 1), 1 / self.variances.flatten(0, 1)
        squares = x.square() @ precision.T - 2 * x @ (means * precision).T + (means.square() * precision).sum(1)
        constant = (2 * math.pi * self.variances.flatten(0, 1)).log().sum(1)
        return (-0.5 * (squares + constant)).unflatten(-1, self.log_weights.shape) + self.log_weights

    def log_prob(self, x: Tensor) -> Tensor:
        """Frames (B, T, D) -> log-densities (B, T, S)."""
        return self.components(x).logsumexp(-1)

    def start(self, frames: Tensor, states: Tensor, generator: torch.Generator) -> None:
        """Random frames of each state as means, with the variance of the state."""
        n_states, k, _ = self.means.shape
        self.log_weights.fill_(-math.log(k))
        for state in range(n_states):
            own = frames[states == state].double()
            own = own if len(own) else frames.double()
            self.means[state] = own.mean(0) if k == 1 else own[torch.randint(len(own), (k,), generator=generator)]
            self.variances[state] = own.var(0, correction=0).clamp(min=self.min_variance)

    def statistics(self, x: Tensor, posterior: Tensor) -> Statistics:
        """Weights (S, K), sums (S, K, D) and sums of squares (S, K, D) about the present center."""
        joint = self.components(x)
        share = (joint - joint.logsumexp(-1, keepdim=True)).exp() * posterior[..., None]  # (B, T, S, K)
        flat, frames = share.flatten(0, 1).flatten(1), (x.double() - self.means.mean((0, 1))).flatten(0, 1)
        shape = self.means.shape
        return share.sum((0, 1)), (flat.T @ frames).view(shape), (flat.T @ frames.square()).view(shape)

    def maximise(self, sums: Statistics) -> None:
        """Weighted moments; variances stay above the minimum. A component without frames keeps its own."""
        weight, first, second = sums
        used, safe = (weight > 1e-10)[..., None], weight.clamp(min=1e-10)[..., None]
        center = self.means.mean((0, 1))
        variances = (second / safe - (first / safe).square()).clamp(min=self.min_variance)
        self.means.copy_(torch.where(used, first / safe + center, self.means))
        self.variances.copy_(torch.where(used, variances, self.variances))
        total = weight.sum(1, keepdim=True)
        self.log_weights.copy_(torch.where(total > 0, (weight / total.clamp(min=1e-300)).log(), self.log_weights))

    def sample(self, states: Tensor, generator: torch.Generator | None) -> Tensor:
        """Frames (N, D)."""
        values = fork(generator, "values")
        component = draw(self.log_weights.exp()[states], generator)
        noise = normal(len(states), self.means.shape[2], generator=values).to(self.means)
        return self.means[states, component] + self.variances[states, component].sqrt() * noise


class HiddenMarkov(nn.Module):
    """A Markov chain of S states, each with a distribution of frames.

    Sequences have T frames; of shorter ones, `mask` (B, T) is True up to their length.

    Args:
        emission: distribution of the frames of each state.
        n_states: S.
        left_right: a state stays or moves to the next one, and the first one begins.
    """

    log_start: Tensor  # (S,)
    log_transition: Tensor  # from rows to columns, (S, S)

    def __init__(self, emission: Any, n_states: int, left_right: bool = False) -> None:
        super().__init__()
        self.emission, self.left_right = emission, left_right
        eye = torch.eye(n_states, dtype=torch.float64)
        start = eye[0] if left_right else torch.full((n_states,), 1 / n_states, dtype=torch.float64)
        chain = F.normalize(eye + eye.roll(1, 1).triu(), p=1, dim=1) if left_right else start.expand(n_states, -1)
        self.register_buffer("log_start", start.log())
        self.register_buffer("log_transition", chain.log())

    # -- inference -------------------------------------------------------------------------------------------

    def forward_messages(self, emitted: Tensor, mask: Tensor) -> Tensor:
        """log p(x_1..x_t, state_t), (B, T, S), given log-densities (B, T, S); after an end, that of the last frame."""
        message = self.log_start + emitted[:, 0]
        found = [message]
        for t in range(1, emitted.shape[1]):
            moved = (message[..., None] + self.log_transition).logsumexp(1) + emitted[:, t]
            message = torch.where(mask[:, t, None], moved, message)
            found.append(message)
        return torch.stack(found, 1)

    def log_prob(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Exact log-likelihood of sequences (B, T, ...), in nats (B,)."""
        mask = everywhere(x) if mask is None else mask
        return self.forward_messages(self.emission.log_prob(x), mask)[:, -1].logsumexp(1)

    def expect(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """E-step: posterior of the states (B, T, S), expected transitions (S, S), log-likelihoods (B,)."""
        emitted = self.emission.log_prob(x)
        messages = self.forward_messages(emitted, mask)
        total = messages[:, -1].logsumexp(1)
        later = torch.zeros_like(messages[:, 0])  # log p(x_t+1..x_T | state_t), (B, S)
        posterior = [messages[:, -1] - total[:, None]]
        moves = torch.zeros_like(self.log_transition)
        for t in range(emitted.shape[1] - 1, 0, -1):
            ahead = self.log_transition + (emitted[:, t] + later)[:, None]  # (B, S, S)
            real = mask[:, t, None]
            both = messages[:, t - 1, :, None] + ahead - total[:, None, None]
            moves += (both.exp() * real[..., None]).sum(0)
            later = torch.where(real, ahead.logsumexp(2), later)
            posterior.append(messages[:, t - 1] + later - total[:, None])
        return torch.stack(posterior[::-1], 1).exp() * mask[..., None], moves, total

    def posterior(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Probability of each state at each frame, given the whole sequence, (B, T, S)."""
        return self.expect(x, everywhere(x) if mask is None else mask)[0]

    def viterbi(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Likeliest states (B, T), the last one repeated after an end; and their joint log-probability (B,)."""
        mask = everywhere(x) if mask is None else mask
        emitted = self.emission.log_prob(x)
        best, back = self.log_start + emitted[:, 0], []
        stay = torch.arange(best.shape[1], device=best.device)
        for t in range(1, emitted.shape[1]):
            value, origin = (best[..., None] + self.log_transition).max(1)
            best = torch.where(mask[:, t, None], value + emitted[:, t], best)
            back.append(torch.where(mask[:, t, None], origin, stay))
        score, state = best.max(1)
        path = [state]
        for origin in reversed(back):
            path.append(origin.gather(1, path[-1][:, None])[:, 0])
        return torch.stack(path[::-1], 1), score

    def sample(self, n: int, length: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw n sequences: frames (n, T, ...), and states (n, T); the first ones are equal for every n."""
        values = fork(generator, "frames")
        uniform = torch.rand(n, length, generator=generator, dtype=torch.float64).to(self.log_start.device)
        state = categorical_from_uniform(self.log_start.exp(), uniform[:, 0])
        states = [state]
        for t in range(1, length):
            state = categorical_from_uniform(self.log_transition.exp()[state], uniform[:, t])
            states.append(state)
        path = torch.stack(states, 1)
        frames = self.emission.sample(path.flatten(), values)
        return frames.unflatten(0, (n, length)), path

    # -- learning --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def fit(
        self, x: Tensor, mask: Tensor | None = None, *, iterations: int = 100, tolerance: float = 1e-4, seed: int = 0
    ) -> list[float]:
        """Choose first parameters, then run Baum-Welch.

        Args:
            x: sequences (N, T, ...).
            mask: of the frames, (N, T).
            iterations: most steps.
            tolerance: least gain of the mean log-likelihood per frame to continue, in nats.
            seed: of the first parameters.

        Returns:
            The log-likelihood of all sequences before each step and after the last.
        """
        mask = everywhere(x) if mask is None else mask
        self.start(x, mask, torch.Generator().manual_seed(seed))
        history, frames = list[float](), float(mask.sum())
        for _ in range(iterations):
            history.append(self.step(x, mask))
            if len(history) > 1 and history[-1] - history[-2] < tolerance * frames:
                break
        return [*history, sum(float(self.log_prob(a, b).sum()) for a, b in in_chunks(x, mask))]

    def start(self, x: Tensor, mask: Tensor, generator: torch.Generator) -> None:
        """First parameters: states in equal parts of each sequence, or clusters of frames."""
        n_states, frames = len(self.log_start), x[mask]
        if self.left_right:
            place = torch.arange(x.shape[1], device=x.device) * n_states / mask.sum(1, keepdim=True)
            states = place.long()[mask]
        elif frames.is_floating_point():
            from sklearn.cluster import KMeans

            some = frames[torch.randperm(len(frames), generator=generator)[:5000]]
            means = KMeans(min(n_states, len(some)), n_init=1, random_state=0).fit(some.double().cpu().numpy())
            centers = torch.from_numpy(means.cluster_centers_).to(frames.device)
            states = torch.cdist(frames.double(), centers.double()).argmin(1)
        else:
            states = torch.randint(n_states, (len(frames),), generator=generator)
            noise = exponential(self.log_transition.shape, generator)
            self.log_transition.copy_(noise.log().log_softmax(1))  # uniform over all chains: EM leaves it at once
        self.emission.start(frames, states, generator)

    def step(self, x: Tensor, mask: Tensor) -> float:
        """One step of Baum-Welch on sequences (N, T, ...); returns their log-likelihood before it."""
        start, moves = torch.zeros_like(self.log_start), torch.zeros_like(self.log_transition)
        sums, total = list[Tensor](), 0.0
        for some, real in in_chunks(x, mask):
            posterior, moved, nats = self.expect(some, real)
            found = self.emission.statistics(some, posterior)
            start, moves, total = start + posterior[:, 0].sum(0), moves + moved, total + float(nats.sum())
            sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else list(found)
        self.emission.maximise(tuple(sums))
        self.log_start.copy_((start / start.sum()).log())
        leaves = moves.sum(1, keepdim=True)
        chain = (moves / leaves.clamp(min=1e-300)).log()
        self.log_transition.copy_(torch.where(leaves > 0, chain, self.log_transition))
        return total


def exponential(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Exponential numbers; scaled to the sum one they are uniform over all distributions."""
    return -torch.rand(shape, generator=generator, dtype=torch.float64).clamp(min=1e-12).log()


def everywhere(x: Tensor) -> Tensor:
    """The mask (B, T) of sequences without padding."""
    return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)


def in_chunks(x: Tensor, mask: Tensor) -> Any:
    """Sequences and masks, some at a time."""
    return zip(x.split(CHUNK), mask.split(CHUNK), strict=True)


def draw(probabilities: Tensor, generator: torch.Generator | None) -> Tensor:
    """One category for each row of probabilities (N, K): int64 (N,)."""
    uniform = torch.rand(len(probabilities), generator=generator, dtype=torch.float64)
    return categorical_from_uniform(probabilities, uniform.to(probabilities.device))
