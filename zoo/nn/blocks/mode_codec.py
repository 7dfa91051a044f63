"""Mode-specific normalisation: the numbers of a table as modes of a mixture, and values within them."""

import warnings

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.nn.blocks.constants import FixedConstants
from zoo.nn.blocks.table_codec import TableCodec

WIDTH = 4.0  # standard deviations in one unit of a value
LEAST_WEIGHT = 0.005  # of a mode that is kept
FIT_ROWS = 10_000  # most rows that a mixture is fitted to
FIT_STEPS = 100  # most steps of the fit
OPEN = 1e-7  # away from 0 and 1, of a uniform number


class ModeCodec(FixedConstants):
    """Encoded rows (N, F) <-> wide rows (N, W), whose numbers are a mode and a value within the mode.

    Each column of numbers has a mixture of at most K Gaussians. A number is one-hot over the modes, drawn from their
    responsibilities for it, and (number - mean) / (4 std) of this mode. Whatever the mode, the inverse is the number.
    A missing number has neither a mode nor a value: all are 0. A wide row has the choices of the codec, then the modes
    of all M columns of numbers, then their values. Before `fit`, a column has one mode, over its range. Source: Xu et
    al. 2019 (arXiv:1907.00503), section 4.2.

    Args:
        codec: of the table.
        n_modes: K.
    """

    weights: Tensor  # (M, K), 0 of modes that are not in use
    means: Tensor  # (M, K), in the unit of t
    stds: Tensor  # (M, K)
    fitted: Tensor  # bool ()
    chosen_at: Tensor  # int64 (C,), places of the choices in an encoded row
    gate_at: Tensor  # int64 (M,), place in a wide row that is 1 where a number is present; -1 if it always is

    def __init__(self, codec: TableCodec, n_modes: int) -> None:
        super().__init__()
        self.codec, self.n_modes, self.n_numbers = codec, n_modes, len(codec.score_blocks)
        last = codec.last.clamp(min=1.0)[:, None].expand(-1, n_modes)  # (M, K)
        self.register_buffer("weights", F.one_hot(torch.zeros(len(last)).long(), n_modes).float())
        self.register_buffer("means", last / 2)
        self.register_buffer("stds", last / (2 * WIDTH))
        self.register_buffer("fitted", torch.tensor(False))
        self.choices: list[slice] = []  # of the columns, in a wide row
        gates, places = [-1] * self.n_numbers, list[int]()
        for block in codec.blocks:
            if block.choice:
                self.choices.append(slice(len(places), len(places) + block.size))
                places += range(block.start, block.start + block.size)
            elif block.gate >= 0:
                gates[block.scale] = len(places) - 2  # the choice before it: present, missing
        self.n_chosen = len(places)
        self.n_places = self.n_chosen + self.n_numbers * n_modes  # of all one-hot parts
        self.width = self.n_places + self.n_numbers
        self.register_buffer("chosen_at", torch.tensor(places, dtype=torch.int64), persistent=False)
        self.register_buffer("gate_at", torch.tensor(gates, dtype=torch.int64), persistent=False)

    # -- modes -------------------------------------------------------------------------------------------------------

    def fit(self, x: Tensor) -> None:
        """Fit the mixtures to encoded rows (N, F), by variational inference that leaves superfluous modes empty.

        It is that of scikit-learn, with a Dirichlet process over the weights, on numbers of mean 0 and variance 1.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import BayesianGaussianMixture

        x = x[torch.linspace(0, len(x) - 1, min(len(x), FIT_ROWS)).long()].cpu().double()
        t = self.numbers(x).cpu()
        present = self.present(x[:, self.chosen_at.cpu()]).cpu().bool()
        for m in range(self.n_numbers):
            given = t[present[:, m], m]
            if len(given) < 2 or not given.std():
                continue  # one mode
            centre, spread = given.mean(), given.std()
            found = BayesianGaussianMixture(
                n_components=min(self.n_modes, len(given)),
                weight_concentration_prior=1e-3,
                max_iter=FIT_STEPS,
                random_state=0,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # any mixture has an exact inverse
                found.fit(((given - centre) / spread)[:, None].numpy())
            weights, means, variances = (
                torch.from_numpy(v).flatten() for v in (found.weights_, found.means_, found.covariances_)
            )
            used = len(weights)
            kept = torch.where(weights >= LEAST_WEIGHT, weights, 0.0)
            self.weights[m] = 0.0
            self.weights[m, :used] = (kept / kept.sum()).to(self.weights)
            self.means[m, :used] = (centre + spread * means).to(self.means)
            self.stds[m, :used] = (spread * variances.sqrt()).to(self.stds)
        self.fitted.fill_(True)

    def numbers(self, x: Tensor) -> Tensor:
        """Values of t (N, M) of encoded rows (N, F): on the grid, and in the range of the column."""
        if not self.n_numbers:
            return x[:, :0]
        return self.codec.on_range(self.codec.from_scores(x[:, self.codec.at.to(x.device)]))

    def present(self, chosen: Tensor) -> Tensor:
        """Presence of each number (N, M), 1 or 0 or between, from the choices of wide rows (N, C or more)."""
        padded = F.pad(chosen[:, : self.n_chosen], (0, 1), value=1.0)  # place -1
        return padded[:, self.gate_at.to(chosen.device)]

    def responsibilities(self, t: Tensor) -> Tensor:
        """Probabilities (N, M, K) of the modes given numbers (N, M)."""
        means, stds = self.means.to(t), self.stds.to(t)
        nats = self.weights.to(t).log() - stds.log() - ((t[..., None] - means) / stds).square() / 2
        return nats.softmax(-1)

    # -- rows --------------------------------------------------------------------------------------------------------

    def encode(self, x: Tensor, u: Tensor) -> Tensor:
        """Encoded rows (N, F), and uniform numbers (N, M) that choose modes -> wide rows (N, W)."""
        chosen, t = x[:, self.chosen_at], self.numbers(x)
        mass = self.responsibilities(t).cumsum(-1)
        mode = (mass[..., :-1] <= u[..., None] * mass[..., -1:]).sum(-1)  # (N, M)
        modes = F.one_hot(mode, self.n_modes).to(x)
        mean, std = (modes * self.means).sum(-1), (modes * self.stds).sum(-1)
        value, present = (t - mean) / (WIDTH * std), self.present(chosen)
        return torch.cat([chosen, (modes * present[..., None]).flatten(1), value * present], 1)

    def decode(self, wide: Tensor) -> Tensor:
        """Wide rows (N, W), or any vectors -> encoded rows (N, F); of one-hot parts, the largest place counts."""
        x = wide.new_zeros(wide.shape[0], self.codec.width)
        x[:, self.chosen_at] = wide[:, : self.n_chosen]
        if self.n_numbers:
            modes = F.one_hot(self.alive(self.by_column(wide)).argmax(-1), self.n_modes).to(wide)
            t = (modes * self.means).sum(-1) + WIDTH * (modes * self.stds).sum(-1) * wide[:, self.n_places :]
            x[:, self.codec.at] = self.codec.to_scores(self.codec.on_range(t))
        return self.codec.snap(x)

    def by_column(self, wide: Tensor) -> Tensor:
        """The modes of wide rows (N, W), column by column: (N, M, K)."""
        return wide[:, self.n_chosen : self.n_places].unflatten(1, (self.n_numbers, self.n_modes))

    def alive(self, modes: Tensor) -> Tensor:
        """Logits of modes (N, M, K), without those that are not in use."""
        return modes.masked_fill(self.weights == 0, -torch.inf)

    def logits(self, raw: Tensor) -> Tensor:
        """Outputs of a network (N, W) -> logits of all one-hot parts (N, P)."""
        return torch.cat([raw[:, : self.n_chosen], self.alive(self.by_column(raw)).flatten(1)], 1)

    def soften(self, raw: Tensor, u: Tensor, temperature: float) -> Tensor:
        """Outputs of a network (N, W), and uniform numbers (N, P) -> wide rows (N, W), differentiable.

        Choices and modes are draws of the Gumbel-softmax distribution (Jang et al. 2016, arXiv:1611.01144, equation 2).
        Their largest places have the probabilities of the softmax of the outputs. Values are in (-1, 1).
        """
        noisy = (self.logits(raw) + gumbel(u)) / temperature
        chosen = torch.cat([raw[:, :0], *(noisy[:, choice].softmax(1) for choice in self.choices)], 1)
        modes, present = self.by_column(noisy).softmax(-1), self.present(chosen)
        return torch.cat([chosen, (modes * present[..., None]).flatten(1), raw[:, self.n_places :].tanh() * present], 1)


def gumbel(u: Tensor) -> Tensor:
    """Uniform numbers -> numbers of the standard Gumbel distribution."""
    return -(-u.clamp(OPEN, 1 - OPEN).log()).log()
