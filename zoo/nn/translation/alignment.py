"""Word alignment: IBM models 1 and 2, and the hidden Markov model.

A target y_1 ... y_T is written word by word. Each y_j is drawn from t(y_j | x_{a_j}), where a_j is a source position,
or 0 for the empty word NULL. The models differ in p(a_j | a_1 ... a_{j-1}). Both texts contain their end token, so that
the probabilities of all targets sum to one without a model of lengths.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class UniformAlignment(nn.Module):
    """Alignments of IBM model 1: every source position and NULL are equally likely (Brown et al. 1993, equation 4)."""

    def start(self, lengths: Tensor) -> dict[str, Tensor]:
        """State before the first target word, for sources of these lengths (B,)."""
        return {"lengths": lengths, "step": torch.zeros_like(lengths)}

    def predict(self, state: dict[str, Tensor], width: int) -> Tensor:
        """Probabilities (B, S + 1) of NULL and of `width` = S source positions for the next target word."""
        inside = torch.arange(width + 1, device=state["lengths"].device) <= state["lengths"][:, None]
        return inside / (state["lengths"][:, None] + 1.0).double()

    def observe(self, state: dict[str, Tensor], emitted: Tensor) -> None:
        """Advance the state, given t (B, S + 1) of the word that was written."""
        state["step"] = state["step"] + 1

    def weights(self, steps: int, lengths: Tensor) -> Tensor:
        """Probabilities (T, S + 1) for sources of one length, at each of T = `steps` target positions."""
        state, found = self.start(lengths[:1]), []
        for _ in range(steps):
            found.append(self.predict(state, int(lengths[0])))
            self.observe(state, found[-1])
        return torch.cat(found)

    def posterior(self, emitted: Tensor, lengths: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Any]:
        """Posterior of alignments (B, T, S + 1), log-likelihoods (B, T) in nats, and statistics for `maximise`.

        Args:
            emitted: t of each target word given NULL and each source word, (B, T, S + 1).
            lengths: of the sources (B,), all equal to S.
            real: bool (B, T), False where a target is padded; all is zero there.
        """
        joint = self.weights(emitted.shape[1], lengths) * emitted
        p = joint.sum(2)
        found = joint * (real / p)[..., None]
        return found, p.log() * real, found.sum(0)

    def maximise(self, statistics: list[Any]) -> None:
        """M-step, given the statistics of all groups; there are no parameters here."""

    def best(self, emitted: Tensor, lengths: Tensor) -> Tensor:
        """Most likely alignment (B, T), 0 for NULL, for sources of one length."""
        return (self.weights(emitted.shape[1], lengths) * emitted).argmax(2)


class AbsoluteAlignment(UniformAlignment):
    """Alignments of IBM model 2: a(i | j, S) by absolute positions (Brown et al. 1993, section 4.2).

    The length of the target is not a condition, so that targets can be written from left to right.
    """

    positions: Tensor  # (S, T, 1 + S): of NULL and source position, by source length and target position

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("positions", torch.zeros(0, 0, 1, dtype=torch.float64))

    def predict(self, state: dict[str, Tensor], width: int) -> Tensor:
        """Uniform for lengths and positions without data."""
        table, lengths, step = self.positions, state["lengths"], state["step"]
        uniform = super().predict(state, width)
        if not table.numel():
            return uniform
        known = (lengths < table.shape[0]) & (step < table.shape[1])
        row = table[lengths.clamp(max=table.shape[0] - 1), step.clamp(max=table.shape[1] - 1)]  # (B, 1 + longest)
        row = F.pad(row, (0, max(width + 1 - row.shape[1], 0)))[:, : width + 1]
        return torch.where((known & (row.sum(1) > 0))[:, None], row, uniform)

    def maximise(self, statistics: list[Any]) -> None:
        """Expected counts of positions (T, S + 1), normalised for each source length."""
        longest, steps = max(s.shape[1] for s in statistics), max(s.shape[0] for s in statistics)
        counts = statistics[0].new_zeros(longest, steps, longest)
        for found in statistics:
            counts[found.shape[1] - 1, : found.shape[0], : found.shape[1]] += found
        self.positions = counts / counts.sum(2, keepdim=True).clamp(min=torch.finfo(counts.dtype).tiny)


class JumpAlignment(UniformAlignment):
    """Alignments of the hidden Markov model (Vogel, Ney & Tillmann 1996; NULL as in Och & Ney 2003, section 2.1.1).

    The next source position depends on the last one by c(distance), normalised over the source. NULL has the
    probability `null`, and keeps the last position. Position 0 is before the source.

    Args:
        null: probability of NULL.
    """

    jumps: Tensor  # (2 K + 1,): c of the distances -K to K

    def __init__(self, null: float) -> None:
        super().__init__()
        self.null = null
        self.register_buffer("jumps", torch.ones(1, dtype=torch.float64))

    def reach(self, lengths: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Distance (S + 1, S) from each remembered position to each source position, and which exist (B, 1, S)."""
        place = torch.arange(width, device=lengths.device)
        return place + 1 - torch.arange(width + 1, device=lengths.device)[:, None], (place < lengths[:, None])[:, None]

    def matrix(self, lengths: Tensor, width: int) -> Tensor:
        """Transitions (B, S + 1, S) from remembered positions to source positions."""
        distance, exists = self.reach(lengths, width)
        most = len(self.jumps) // 2
        weight = self.jumps[(distance + most).clamp(0, 2 * most)] * exists
        return weight / weight.sum(2, keepdim=True)

    def start(self, lengths: Tensor) -> dict[str, Tensor]:
        """Nothing is read yet."""
        width = int(lengths.max())
        begin = F.one_hot(torch.zeros_like(lengths), width + 1).double()
        return {"lengths": lengths, "last": begin, "moves": self.matrix(lengths, width)}

    def predict(self, state: dict[str, Tensor], width: int) -> Tensor:
        """NULL, then positions reached from the beliefs about the last one."""
        reached = torch.einsum("br,bri->bi", state["last"], state["moves"])
        return F.pad(F.pad(reached * (1 - self.null), (1, 0), value=self.null), (0, width - reached.shape[1]))

    def observe(self, state: dict[str, Tensor], emitted: Tensor) -> None:
        """Forward recursion, scaled to a sum of one."""
        prior = self.predict(state, emitted.shape[1] - 1)
        moved = F.pad((prior * emitted)[:, 1:], (1, 0))[:, : state["last"].shape[1]]
        new = moved + self.null * emitted[:, :1] * state["last"]
        state["last"] = new / new.sum(1, keepdim=True)

    def posterior(self, emitted: Tensor, lengths: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Any]:
        """Forward-backward algorithm; the statistics are expected transitions (S + 1, S)."""
        moves = self.matrix(lengths[:1], emitted.shape[2] - 1)[0]  # (S + 1, S)
        # A padded word keeps all beliefs, at the probability one.
        stays = torch.where(real, self.null * emitted[:, :, 0], 1.0)[..., None].unbind(1)  # T of (B, 1)
        arrivals = ((1 - self.null) * emitted[:, :, 1:] * real[..., None]).unbind(1)  # T of (B, S)
        last = self.start(lengths)["last"].to(emitted.dtype)
        past, scales = [], []
        for stay, arrival in zip(stays, arrivals, strict=True):
            past.append(last)
            last = stay * last
            last[:, 1:] += (past[-1] @ moves) * arrival
            scales.append(last.sum(1, keepdim=True))
            last = last / scales[-1]
        future = torch.ones_like(last)  # (B, S + 1), divided by the scales of later words
        nulls, arrived = [], []
        for before, stay, arrival, scale in zip(past[::-1], stays[::-1], arrivals[::-1], scales[::-1], strict=True):
            future = future / scale
            arrived.append(arrival * future[:, 1:])
            nulls.append((before * future).sum(1, keepdim=True) * stay)
            future = arrived[-1] @ moves.T + stay * future
        before, after = torch.stack(past, 1), torch.stack(arrived[::-1], 1)
        links = (before @ moves) * after
        transitions = (before.flatten(0, 1).T @ after.flatten(0, 1)) * moves
        found = torch.cat([torch.stack(nulls[::-1], 1), links], 2) * real[..., None]
        return found, torch.cat(scales, 1).log(), transitions

    def maximise(self, statistics: list[Any]) -> None:
        """Exact M-step of multinomials truncated to the source.

        Jumps that leave the source are missing data of the same multinomial: so many of them are expected, and counted.
        """
        most = max(s.shape[1] for s in statistics)
        old = self.jumps if len(self.jumps) == 2 * most + 1 else torch.ones(2 * most + 1).to(self.jumps)
        old = old / old.sum()
        counts = torch.zeros_like(old)
        for found in statistics:
            width = found.shape[1]
            distance, _ = self.reach(torch.tensor([width], device=found.device), width)
            counts.index_add_(0, (distance + most).flatten(), found.flatten())
            allowed = old[distance + most]  # (S + 1, S)
            repeats = found.sum(1) / allowed.sum(1)
            counts += repeats.sum() * old
            counts.index_add_(0, (distance + most).flatten(), -(repeats[:, None] * allowed).flatten())
        self.jumps = counts.clamp(min=1e-12) / counts.clamp(min=1e-12).sum()

    def best(self, emitted: Tensor, lengths: Tensor) -> Tensor:
        """Viterbi algorithm; like `posterior`, for sources of one length."""
        moves = self.matrix(lengths[:1], emitted.shape[2] - 1)[0].log()
        log_t, (log_move, log_stay) = emitted.log(), torch.tensor([1 - self.null, self.null]).double().log().tolist()
        score = torch.full((len(emitted), emitted.shape[2]), -torch.inf, dtype=emitted.dtype, device=emitted.device)
        score[:, 0] = 0
        came, stayed = [], []
        for j in range(emitted.shape[1]):
            reach, source = (score[:, :, None] + moves).max(1)  # (B, S)
            move = F.pad(reach + log_move + log_t[:, j, 1:], (1, 0), value=-torch.inf)
            stay = score + log_stay + log_t[:, j, :1]
            stayed.append(stay >= move)
            came.append(F.pad(source, (1, 0)))
            score = torch.maximum(stay, move)
        last, path = score.argmax(1, keepdim=True), []
        for null, source in zip(reversed(stayed), reversed(came), strict=True):
            rests = null.gather(1, last)
            path.append(torch.where(rests, 0, last))
            last = torch.where(rests, last, source.gather(1, last))
        return torch.cat(path[::-1], 1)
