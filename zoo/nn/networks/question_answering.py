"""A network that answers questions about pictures."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.nn.blocks.constants import FixedConstants
from zoo.nn.blocks.layers import image_shape, norm2d, resolutions
from zoo.nn.blocks.transformer_block import TransformerStack
from zoo.nn.blocks.transformer_config import TransformerConfig


class PictureQuestions(FixedConstants):
    """Pictures (B, *shape) and vectors of questions (B, Q, d_question) -> logits (B, Q, n_out) of answers.

    A picture is read once for all its questions. Strided convolutions make a grid of cells. With their coordinates,
    cells attend to one another. Features of all cells are multiplied by those of a question, which thus chooses among
    them: low-rank bilinear pooling (Kim et al. 2017, arXiv:1610.04325).

    Args:
        shape: (C, H, W).
        d_question: width of the vectors of questions.
        n_out: answers.
        width: feature maps of the first convolution, doubled in the others.
        cell_side: the picture is halved until its shorter side has at most so many cells.
        d_model: width of a cell, a multiple of n_heads.
        n_layers: transformer blocks over the cells; 0 is none, so that cells are not compared.
        n_heads: attention heads.
        n_features: features of the picture, and of a question.
    """

    def __init__(
        self,
        shape: Sequence[int],
        d_question: int,
        n_out: int,
        *,
        width: int,
        cell_side: int,
        d_model: int,
        n_layers: int,
        n_heads: int,
        n_features: int,
    ) -> None:
        super().__init__()
        channels, *size = image_shape("vqa", shape)
        sizes = resolutions(size[0], size[1], cell_side)
        layers: list[nn.Module] = []
        for level in range(len(sizes) - 1):
            n_out_maps = width * 2 ** min(level, 1)
            layers += [nn.Conv2d(channels, n_out_maps, 3, stride=2, padding=1), norm2d("batch", n_out_maps), nn.ReLU()]
            channels = n_out_maps
        layers += [nn.Conv2d(channels, d_model, 3, padding=1), norm2d("batch", d_model), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        cells = sizes[-1][0] * sizes[-1][1]
        rows, columns = (torch.linspace(-1, 1, side) for side in sizes[-1])
        self.coordinates: Tensor  # (cells, 2)
        self.register_buffer("coordinates", torch.cartesian_prod(rows, columns), persistent=False)
        self.place = nn.Linear(d_model + 2, d_model)
        config = TransformerConfig(d_model, n_heads, norm="layernorm", mlp="relu", d_ff=2 * d_model, bias=True)
        self.cells = TransformerStack(config, n_layers, cells, position_encoding="learned", causal=False)
        self.cells.reset()
        self.picture_head = nn.Sequential(nn.Linear(cells * d_model, n_features), nn.ReLU())
        self.question_head = nn.Linear(d_question, n_features)
        self.answer_head = nn.Sequential(nn.Linear(n_features, 128), nn.ReLU(), nn.Linear(128, n_out))

    def read(self, x: Tensor) -> Tensor:
        """Pictures (B, *shape) -> features (B, n_features)."""
        cells = self.convolutions(x).flatten(2).transpose(1, 2)  # (B, cells, d)
        placed = torch.cat([cells, self.coordinates.to(cells.dtype).expand(len(x), -1, -1)], 2)
        return self.picture_head(self.cells.run(self.place(placed)).flatten(1))

    def forward(self, x: Tensor, questions: Tensor) -> Tensor:
        """(B, *shape), (B, Q, d_question) -> (B, Q, n_out)."""
        chosen = self.read(x)[:, None] * self.question_head(questions)  # (B, Q, n_features)
        logits: Tensor = self.answer_head(chosen)
        return logits
