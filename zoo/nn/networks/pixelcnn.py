"""Gated PixelCNN (van den Oord et al. 2016, 1606.05328): one level after another, by convolutions that look back only.

Two stacks of convolutions. At a pixel the vertical one has seen all rows above, the horizontal one its own row to the
left, and at every layer what the vertical one knows; so nothing that came before is out of sight. Channels of a pixel
follow each other: features are divided into as many groups as there are channels, and those of a group know the
channels before its own.

A row of the vertical stack never changes once the rows above are there, nor a column of the horizontal one: writing
computes every position once, where going over the whole image for each level computes all of them each time.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ZooError


def groups(features: int, channels: int) -> Tensor:
    """Which channel each of the features belongs to, in equal shares: int64 (features,), ascending."""
    return torch.arange(features) * channels // features


class MaskedConv(nn.Module):
    """Convolution along a row over the last `width` pixels, whose last is the pixel itself.

    Of that pixel an output sees inputs of its own group and those before, or only those before where `strict`.

    Args:
        into: group of each input feature.
        out: group of each output feature.
        width: pixels.
        strict: see above.
    """

    mask: Tensor

    def __init__(self, into: Tensor, out: Tensor, width: int = 1, strict: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(len(into), len(out), (1, width))
        mask = torch.ones_like(self.conv.weight)
        mask[..., -1] = (out[:, None] > into if strict else out[:, None] >= into)[..., None]
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, R, width - 1 + W) -> (B, out, R, W)."""
        return F.conv2d(x, self.conv.weight * self.mask, self.conv.bias)


def gate(x: Tensor) -> Tensor:
    """tanh of the first half of the features times the sigmoid of the second: (B, 2 D, ...) -> (B, D, ...)."""
    a, b = x.chunk(2, dim=1)
    return a.tanh() * b.sigmoid()


class Layer(nn.Module):
    """One layer of both stacks (figure 2 of the paper), for inputs that begin with what lies above and to the left.

    Args:
        into: group of each input feature.
        out: group of each output feature.
        reach: pixels that it looks up, left, and, above, right.
        first: the inputs are the image; else the horizontal stack adds to what it reads.
        classes: class labels that shift the features (equation 4); 0 is none.
    """

    def __init__(self, into: Tensor, out: Tensor, reach: int, first: bool, classes: int) -> None:
        super().__init__()
        self.reach, self.residual, both = reach, not first, torch.cat([out, out])
        self.vertical = nn.Conv2d(len(into), len(both), (reach + 1, 2 * reach + 1), padding=(0, reach))
        self.link = nn.Conv2d(len(both), len(both), 1)
        self.horizontal = MaskedConv(into, both, reach + 1, strict=first)
        self.out = MaskedConv(out, out)
        self.shift = nn.Embedding(classes, 2 * len(both)) if classes else None

    def shifts(self, label: Tensor) -> tuple[Tensor, Tensor] | tuple[float, float]:
        """What a class (B,) adds to the vertical and the horizontal stack, (B, 2 D, 1, 1) each."""
        if self.shift is None:
            return 0.0, 0.0
        vertical, horizontal = self.shift(label)[..., None, None].chunk(2, dim=1)
        return vertical, horizontal

    def down(self, above: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """(B, in, reach + R, W) -> R rows of the vertical stack (B, D, R, W), and what they say to the other."""
        v = self.vertical(above) + self.shifts(label)[0]
        return gate(v), self.link(v) + self.shifts(label)[1]

    def along(self, left: Tensor, said: Tensor) -> Tensor:
        """(B, in, R, reach + W) and what the vertical stack says (B, 2 D, R, W) -> (B, D, R, W)."""
        h = self.out(gate(self.horizontal(left) + said))
        return h + left[..., self.reach :] if self.residual else h


@dataclass
class PixelCache:
    """Images under construction, and the features that pixels to come will look at."""

    label: Tensor  # (B,)
    image: Tensor  # (B, C, H, reach + W), zero where nothing is known, with a margin at the left
    above: list[Tensor]  # per layer (B, in, reach, W): the last rows that the vertical stack read
    left: list[Tensor]  # per layer (B, in, 1, reach): the last columns that the horizontal stack read
    said: list[Tensor]  # per layer (B, 2 D, 1, W): what the vertical stack says to the row
    place: int = 0  # how many levels are known


class GatedPixelCNN(nn.Module):
    """Levels (B, C, H, W) -> logits of each level, given those before it in the order of rows, columns, channels.

    Follows `zoo.nn.samplers.autoregressive.IncrementalDecoder`: tokens are levels in this order, after one token `levels + class`.

    Args:
        shape: (C, H, W).
        levels: distinct values of a channel; of two, the two logits make a Bernoulli distribution.
        classes: labels that condition everything; 0 is none.
        channels: features of each stack.
        n_layers: layers, the first included.
        first_kernel: odd; how wide the first layer looks.
        kernel: odd; how wide the others do.

    Raises:
        ZooError: an even kernel, or fewer features than the image has channels.
    """

    layers: Any  # nn.ModuleList of Layer
    head: Any  # nn.Sequential

    def __init__(
        self,
        shape: tuple[int, int, int],
        levels: int,
        classes: int = 0,
        *,
        channels: int = 64,
        n_layers: int = 8,
        first_kernel: int = 7,
        kernel: int = 3,
    ) -> None:
        super().__init__()
        for name, size in (("first_kernel", first_kernel), ("kernel", kernel)):
            if size % 2 == 0:
                raise ZooError(f"{name}={size} has no pixel in its middle: choose {size - 1} or {size + 1}.")
        if channels < shape[0]:
            raise ZooError(f"channels={channels} features cannot be divided among {shape[0]} colours: choose more.")
        self.shape, self.levels = shape, levels
        self.context: float = shape[0] * shape[1] * shape[2]
        pixel, hidden = groups(shape[0], shape[0]), groups(channels, shape[0])
        layers = [Layer(pixel, hidden, first_kernel // 2, True, classes)]
        layers += [Layer(hidden, hidden, kernel // 2, False, classes) for _ in range(n_layers - 1)]
        self.layers = nn.ModuleList(layers)
        self.head = nn.Sequential(
            nn.ReLU(),
            MaskedConv(hidden, hidden),
            nn.ReLU(),
            MaskedConv(hidden, groups(shape[0] * levels, shape[0])),
        )
        nn.init.zeros_(self.head[3].conv.weight)  # every level is as likely at the beginning
        nn.init.zeros_(self.head[3].conv.bias)

    def scaled(self, level: Tensor) -> Tensor:
        """Levels as numbers in [-1, 1]; the zeros around an image are grey."""
        return level.to(self.head[3].conv.weight.dtype) * (2 / (self.levels - 1)) - 1

    def forward(self, level: Tensor, label: Tensor) -> Tensor:
        """Levels int64 (B, C, H, W) and classes (B,) -> logits (B, levels, C, H, W)."""
        h = self.scaled(level)
        v = F.pad(h, (0, 0, 1, 0))[:, :, :-1]  # a row knows the one above it
        for layer in self.layers:
            v, said = layer.down(F.pad(v, (0, 0, layer.reach, 0)), label)
            h = layer.along(F.pad(h, (layer.reach, 0)), said)
        return self.logits(h)

    def logits(self, h: Tensor) -> Tensor:
        """Features (B, D, R, W) -> (B, levels, C, R, W)."""
        return self.head(h).unflatten(1, (self.shape[0], self.levels)).transpose(1, 2)

    # -- the protocol of `zoo.nn.samplers.autoregressive` -------------------------------------------------------------------

    def prefill(self, tokens: Tensor, padding: Tensor | None = None) -> tuple[Tensor, PixelCache]:
        """A class token and the levels that are known (B, T): logits of the next one (B, levels), and a state.

        Raises:
            ZooError: rows of unequal length.
        """
        if padding is not None:
            raise ZooError("images of a batch must all be as far: begin rows with equally many pixels.")
        (channels, height, width), n, like = self.shape, len(tokens), self.head[3].conv.weight
        sizes = [(layer.vertical.in_channels, layer.reach) for layer in self.layers]
        state = PixelCache(
            tokens[:, 0] - self.levels,
            like.new_zeros(n, channels, height, sizes[0][1] + width),
            [like.new_zeros(n, size, reach, width) for size, reach in sizes],
            [],
            [],
        )
        logits = self.next(state)
        for token in tokens[:, 1:].unbind(1):
            logits = self.step(token, state)
        return logits, state

    def step(self, tokens: Tensor, state: PixelCache) -> Tensor:
        """One more level per image (B,): logits of the next one (B, levels)."""
        channels, _, width = self.shape
        pixel, channel = divmod(state.place, channels)
        row, column = divmod(pixel, width)
        state.image[:, channel, row, column - width] = self.scaled(tokens)
        state.place += 1
        return self.next(state)

    def next(self, state: PixelCache) -> Tensor:
        """Logits of the first level that is not known (B, levels)."""
        channels, _, width = self.shape
        pixel, channel = divmod(state.place, channels)
        row, column = divmod(pixel, width)
        if column == channel == 0:
            self.begin_row(state, row)
        margin = state.image.shape[3] - width
        h = window = state.image[:, :, row : row + 1, column : column + margin + 1]
        for i, layer in enumerate(self.layers):
            if i:
                window = torch.cat([state.left[i], h], dim=3)
                if channel == channels - 1:  # no feature depends on the last channel of its own pixel
                    state.left[i] = window[..., 1:]
            h = layer.along(window, state.said[i][..., column : column + 1])
        return self.logits(h)[:, :, channel, 0, 0]

    def begin_row(self, state: PixelCache, row: int) -> None:
        """The vertical stack at a row, whose rows above are known."""
        width = self.shape[2]
        v = state.image[:, :, max(row - 1, 0)][:, :, None, -width:]
        v = v if row else torch.zeros_like(v)
        state.said, state.left = [], []
        for i, layer in enumerate(self.layers):
            window = torch.cat([state.above[i], v], dim=2)
            state.above[i] = window[:, :, 1:]
            state.left.append(v.new_zeros(*v.shape[:2], 1, layer.reach))
            v, said = layer.down(window, state.label)
            state.said.append(said)

    def reorder(self, state: PixelCache, rows: Tensor) -> None:
        """Image b of the state becomes what image `rows[b]` was."""
        state.label, state.image = state.label[rows], state.image[rows]
        for kept in (state.above, state.left, state.said):
            kept[:] = [t.index_select(0, rows) for t in kept]
