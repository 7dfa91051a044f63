"""Gated PixelCNN (van den Oord et al. 2016, 1606.05328): autoregressive model of pixel levels by masked convolutions.

At each pixel the vertical stack covers all rows above, and the horizontal stack its own row to the left. Every layer
passes features from the vertical to the horizontal stack, so there is no blind spot. Channels of a pixel are ordered:
features form one group per channel, and a group depends on channels before its own.

Codes on a grid have no order, so that each is read as an embedding of its number. Several codes at a place are its
channels.

Sampling caches both stacks: each position is computed once, instead of the whole image per level.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ZooError


def channel_groups(features: int, channels: int) -> Tensor:
    """Channel index of each feature, in equal shares, ascending: int64 (features,)."""
    return torch.arange(features) * channels // features


class MaskedConv(nn.Module):
    """Convolution over the last `width` pixels of a row, up to the pixel itself.

    At the pixel itself, outputs depend on inputs of the same and earlier groups; if `strict`, of earlier groups only.

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
    """Gated activation tanh(a) * sigmoid(b) of both halves of the features, (B, 2 D, ...) -> (B, D, ...)."""
    a, b = x.chunk(2, dim=1)
    return a.tanh() * b.sigmoid()


class GatedLayer(nn.Module):
    """One layer of both stacks (figure 2 of the paper), for inputs padded above and to the left.

    Args:
        into: group of each input feature.
        out: group of each output feature.
        reach: receptive field in pixels: upwards, and to each side.
        first: the inputs are the image; other layers have a residual connection in the horizontal stack.
        classes: number of class labels that shift the features (equation 4); 0 is none.
    """

    def __init__(self, into: Tensor, out: Tensor, reach: int, first: bool, classes: int) -> None:
        super().__init__()
        self.reach, self.residual, both = reach, not first, torch.cat([out, out])
        self.vertical = nn.Conv2d(len(into), len(both), (reach + 1, 2 * reach + 1), padding=(0, reach))
        self.link = nn.Conv2d(len(both), len(both), 1)
        self.horizontal = MaskedConv(into, both, reach + 1, strict=first)
        self.out = MaskedConv(out, out)
        self.shift = nn.Embedding(classes, 2 * len(both)) if classes else None

    def class_bias(self, label: Tensor) -> tuple[Tensor, Tensor] | tuple[float, float]:
        """Bias of classes (B,) for the vertical and the horizontal stack, (B, 2 D, 1, 1) each."""
        if self.shift is None:
            return 0.0, 0.0
        vertical, horizontal = self.shift(label)[..., None, None].chunk(2, dim=1)
        return vertical, horizontal

    def vertical_step(self, above: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """(B, in, reach + R, W) -> R rows of the vertical stack (B, D, R, W), and its link to the horizontal one."""
        v = self.vertical(above) + self.class_bias(label)[0]
        return gate(v), self.link(v) + self.class_bias(label)[1]

    def horizontal_step(self, left: Tensor, link: Tensor) -> Tensor:
        """Row (B, in, R, reach + W) and link from the vertical stack (B, 2 D, R, W) -> (B, D, R, W)."""
        h = self.out(gate(self.horizontal(left) + link))
        return h + left[..., self.reach :] if self.residual else h


@dataclass
class PixelCache:
    """Partially generated images, and cached features."""

    label: Tensor  # (B,)
    image: Tensor  # inputs (B, C E, H, reach + W), zero where unknown, padded at the left
    above: list[Tensor]  # per layer (B, in, reach, W): last input rows of the vertical stack
    left: list[Tensor]  # per layer (B, in, 1, reach): last input columns of the horizontal stack
    link: list[Tensor]  # per layer (B, 2 D, 1, W): features from the vertical stack
    position: int = 0  # number of known levels


class GatedPixelCNN(nn.Module):
    """Levels (B, C, H, W) -> logits of each level, given those before it in the order of rows, columns, channels.

    Implements `zoo.nn.samplers.autoregressive.IncrementalDecoder`: tokens are levels in this order, after one token
    `levels + class`.

    Args:
        shape: (C, H, W).
        levels: distinct values of a channel; two logits for two levels are a Bernoulli distribution.
        classes: number of class labels; 0 is unconditional.
        channels: features of each stack.
        n_layers: number of layers, including the first.
        first_kernel: odd kernel size of the first layer.
        kernel: odd kernel size of the other layers.
        embedding: numbers by which each level is read; 0 reads its value, from -1 to 1.

    Raises:
        ZooError: an even kernel, or fewer features than image channels.
    """

    layers: Any  # nn.ModuleList of GatedLayer
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
        embedding: int = 0,
    ) -> None:
        super().__init__()
        for name, size in (("first_kernel", first_kernel), ("kernel", kernel)):
            if size % 2 == 0:
                raise ZooError(f"{name}={size}: must be odd. Choose {size - 1} or {size + 1}.")
        if channels < shape[0]:
            raise ZooError(f"channels={channels}: fewer features than the {shape[0]} image channels. Choose more.")
        self.shape, self.levels = shape, levels
        self.context: float = shape[0] * shape[1] * shape[2]
        self.width = max(embedding, 1)  # E, features of a level
        self.embedding = nn.Embedding(shape[0] * levels, embedding) if embedding else None
        pixel, hidden = channel_groups(shape[0] * self.width, shape[0]), channel_groups(channels, shape[0])
        layers = [GatedLayer(pixel, hidden, first_kernel // 2, True, classes)]
        layers += [GatedLayer(hidden, hidden, kernel // 2, False, classes) for _ in range(n_layers - 1)]
        self.layers = nn.ModuleList(layers)
        self.head = nn.Sequential(
            nn.ReLU(),
            MaskedConv(hidden, hidden),
            nn.ReLU(),
            MaskedConv(hidden, channel_groups(shape[0] * levels, shape[0])),
        )
        nn.init.zeros_(self.head[3].conv.weight)  # initially uniform over the levels
        nn.init.zeros_(self.head[3].conv.bias)

    def features(self, level: Tensor, channel: int = 0) -> Tensor:
        """Inputs (B, C E, ...) of levels (B, C, ...) of channels from a first one: embeddings, or values in [-1, 1].

        The padding is zero, which is grey.
        """
        if self.embedding is None:
            return level.to(self.head[3].conv.weight.dtype) * (2 / (self.levels - 1)) - 1
        first = (channel + torch.arange(level.shape[1], device=level.device)) * self.levels
        rows = self.embedding(level + first.view(-1, *[1] * (level.ndim - 2)))  # (B, C, ..., E)
        return rows.movedim(-1, 2).flatten(1, 2)

    def forward(self, level: Tensor, label: Tensor) -> Tensor:
        """Levels int64 (B, C, H, W) and classes (B,) -> logits (B, levels, C, H, W)."""
        h = self.features(level)
        v = F.pad(h, (0, 0, 1, 0))[:, :, :-1]  # row i gets row i - 1
        for layer in self.layers:
            v, link = layer.vertical_step(F.pad(v, (0, 0, layer.reach, 0)), label)
            h = layer.horizontal_step(F.pad(h, (layer.reach, 0)), link)
        return self.logits(h)

    def logits(self, h: Tensor) -> Tensor:
        """Features (B, D, R, W) -> (B, levels, C, R, W)."""
        return self.head(h).unflatten(1, (self.shape[0], self.levels)).transpose(1, 2)

    # -- IncrementalDecoder

    def prefill(self, tokens: Tensor, padding: Tensor | None = None) -> tuple[Tensor, PixelCache]:
        """Process a class token and the known levels (B, T): logits of the next one (B, levels), and a state.

        Raises:
            ZooError: rows of unequal length.
        """
        if padding is not None:
            raise ZooError("prompts: images of a batch have different numbers of known pixels. Use equally many.")
        (channels, height, width), n, like = self.shape, len(tokens), self.head[3].conv.weight
        sizes = [(layer.vertical.in_channels, layer.reach) for layer in self.layers]
        state = PixelCache(
            tokens[:, 0] - self.levels,
            like.new_zeros(n, channels * self.width, height, sizes[0][1] + width),
            [like.new_zeros(n, size, reach, width) for size, reach in sizes],
            [],
            [],
        )
        logits = self.next_logits(state)
        for token in tokens[:, 1:].unbind(1):
            logits = self.step(token, state)
        return logits, state

    def step(self, tokens: Tensor, state: PixelCache) -> Tensor:
        """Append one level per image (B,): logits of the next one (B, levels)."""
        channels, _, width = self.shape
        pixel, channel = divmod(state.position, channels)
        row, column = divmod(pixel, width)
        place = slice(channel * self.width, (channel + 1) * self.width)
        state.image[:, place, row, column - width] = self.features(tokens[:, None], channel)
        state.position += 1
        return self.next_logits(state)

    def next_logits(self, state: PixelCache) -> Tensor:
        """Logits of the first unknown level (B, levels)."""
        channels, _, width = self.shape
        pixel, channel = divmod(state.position, channels)
        row, column = divmod(pixel, width)
        if column == channel == 0:
            self.start_row(state, row)
        margin = state.image.shape[3] - width
        h = window = state.image[:, :, row : row + 1, column : column + margin + 1]
        for i, layer in enumerate(self.layers):
            if i:
                window = torch.cat([state.left[i], h], dim=3)
                if channel == channels - 1:  # no feature depends on the last channel of its pixel
                    state.left[i] = window[..., 1:]
            h = layer.horizontal_step(window, state.link[i][..., column : column + 1])
        return self.logits(h)[:, :, channel, 0, 0]

    def start_row(self, state: PixelCache, row: int) -> None:
        """Compute the vertical stack of a row whose rows above are known."""
        width = self.shape[2]
        v = state.image[:, :, max(row - 1, 0)][:, :, None, -width:]
        v = v if row else torch.zeros_like(v)
        state.link, state.left = [], []
        for i, layer in enumerate(self.layers):
            window = torch.cat([state.above[i], v], dim=2)
            state.above[i] = window[:, :, 1:]
            state.left.append(v.new_zeros(*v.shape[:2], 1, layer.reach))
            v, link = layer.vertical_step(window, state.label)
            state.link.append(link)

    def reorder(self, state: PixelCache, rows: Tensor) -> None:
        """Replace image b of the state by image `rows[b]`."""
        state.label, state.image = state.label[rows], state.image[rows]
        for cached in (state.above, state.left, state.link):
            cached[:] = [t.index_select(0, rows) for t in cached]
