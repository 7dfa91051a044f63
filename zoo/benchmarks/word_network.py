"""A residual network that recognises isolated words, trained on recordings that are changed at random."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from zoo.nn.augmentations.speech import SpeechBands, SpeechChanges

BANDS, FRAMES = 32, 48  # of the images


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2015, arXiv:1512.03385)."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU(),
            nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False), nn.BatchNorm2d(n_out),
        )  # fmt: skip
        same = n_in == n_out and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(n_in, n_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, H, W) -> (B, n_out, H / stride, W / stride)."""
        return F.relu(self.first(x) + self.shortcut(x))


class WordNetwork(nn.Module):
    """Images of bands (B, BANDS, FRAMES) -> logits of the words (B, K).

    The mean over frequency lets a sound count wherever its resonances lie; four parts of time keep the order of sounds.

    Args:
        words: K.
        width: feature maps of the first layer.
    """

    def __init__(self, words: int, width: int = 16) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 5, 2, 2, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            Residual(width, width, 1), Residual(width, 2 * width, 2), Residual(2 * width, 4 * width, 2),
            nn.AdaptiveAvgPool2d((1, 4)), nn.Flatten(), nn.Dropout(0.3), nn.Linear(16 * width, words),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(B, BANDS, FRAMES) -> (B, K)."""
        return self.body(x[:, None])


def packed(spectra: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Power (T, F) of each recording -> (N, T, F) with zeros at the ends, and lengths (N,); the loudest frame has 1."""
    lengths = torch.tensor([len(power) for power in spectra])
    return pad_sequence([(power / power.sum(1).max()).float() for power in spectra], batch_first=True), lengths


def train_network(
    spectra: Sequence[Tensor],
    words: Tensor,
    sample_rate: int,
    *,
    steps: int,
    changes: SpeechChanges | None = None,
    batch_size: int = 64,
    lr: float = 4e-3,
    seed: int = 0,
) -> tuple[WordNetwork, SpeechBands]:
    """Train on recordings: AdamW, one cycle of the learning rate, smoothed labels.

    Torch's global random state stays unchanged.

    Args:
        spectra: power of each recording, (T, F).
        words: of the recordings, (N,).
        sample_rate: in Hz.
        steps: batches.
        changes: random changes; None has the default ones.
        batch_size: recordings of a batch.
        lr: the largest learning rate.
        seed: of weights, order and changes.
    """
    x, lengths = packed(spectra)
    bands = SpeechBands(2 * (x.shape[2] - 1), sample_rate, bands=BANDS, frames=FRAMES, changes=changes)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = WordNetwork(int(words.max()) + 1).train()
        optimizer = torch.optim.AdamW(network.parameters(), lr, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
        for _ in range(steps):
            rows = torch.randint(len(words), (batch_size,), generator=generator)
            logits = network(bands.changed(x[rows], lengths[rows], generator))
            loss = F.cross_entropy(logits, words[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval(), bands


@torch.no_grad()
def recognise_by_network(network: WordNetwork, bands: SpeechBands, spectra: Sequence[Tensor]) -> Tensor:
    """The likeliest word of each recording, given its power (T, F); int64 (N,)."""
    return network(bands.plain(*packed(spectra))).argmax(1)
