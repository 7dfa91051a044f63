"""CLIP: pictures and texts as vectors of one space."""

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import torch
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import DataError, ZooError
from zoo.core.registry import register
from zoo.core.signature import Positive, PositiveInt
from zoo.core.spaces import Image, Tokens
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.data.text.tokenizers.base import encode_texts, loads
from zoo.models.base import Model
from zoo.models.embedding.gather import gather_rows
from zoo.models.results import Visual
from zoo.nn.losses.contrastive import sigmoid_loss, symmetric_infonce
from zoo.nn.networks.components import Backbone, Encoder
from zoo.nn.optim.components import Optimizer

MAX_SCALE = 100.0  # of cosine similarities, as in the paper: larger ones make the training unstable
SHOWN = 32  # pairs of the picture of similarities


@register("model", "clip")
class CLIP(Model):
    """Image encoder and text encoder whose vectors are near for a picture and its caption (Radford et al. 2021).

    In each batch, the model finds the caption of each picture and the picture of each caption. Equal captions are not
    negatives of each other. The text vector is the mean of the features of its tokens. For data with class labels, a
    label is a text of two tokens: a begin, and the label. `loss` is in nats per pair.

    Args:
        spec: images with captions, or with class labels.
        dim: of the vectors.
        loss: "infonce" compares a pair with all others of the batch; "siglip" judges each pair alone (Zhai et al. 2023,
            arXiv:2303.15343), with a learned bias beside the log-odds of a pair, -log(B - 1).
        temperature: initial one; similarities are divided by it. It is learned.
        optimizer: with its learning rate and schedule.
        encoder: of pictures.
        backbone: of texts: a transformer encoder.

    Raises:
        DataError: images without captions and labels.
    """

    paper = "Radford et al. 2021 (arXiv:2103.00020); Zhai et al. 2023 (arXiv:2303.15343)"
    accepts = (Image,)

    def __init__(
        self,
        spec: DataSpec,
        *,
        dim: PositiveInt = 64,
        loss: Literal["infonce", "siglip"] = "infonce",
        temperature: Annotated[Positive, Gt(1 / MAX_SCALE)] = 0.1,
        optimizer: Optimizer = "adamw",
        encoder: Encoder = "auto",
        backbone: Backbone = "transformer_encoder",
    ) -> None:
        super().__init__(spec)
        text = spec.condition
        if not isinstance(text, Tokens) and not spec.n_classes:
            raise DataError(f"model=clip: {spec} has no captions. Choose data with captions, as data=captioned_shapes.")
        self.tokenizer: Any = loads(text.tokenizer, text.vocab_size) if isinstance(text, Tokens) else None
        if self.tokenizer is None:
            self.lacks("embed")
        self.length, n_tokens = (text.length, text.vocab_size) if isinstance(text, Tokens) else (2, spec.n_classes + 1)
        self.image_encoder = self.build_component("encoder", "encoder", spec.shape, dim)
        self.text_encoder = self.build_component("backbone", "backbone", n_tokens, 1, self.length, method="features")
        self.text_encoder.head = nn.Identity()  # of a language model: its logits are not used
        self.text_head = nn.Linear(self.text_encoder.config.d_model, dim, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.bias = nn.Parameter(torch.zeros(())) if loss == "siglip" else None

    # -- vectors ---------------------------------------------------------------------------------------------

    def text_vectors(self, y: Tensor) -> Tensor:
        """Tokens (B, T), negative for padding, or labels (B,) -> vectors of length one (B, dim)."""
        if y.ndim == 1:
            y = torch.stack([torch.full_like(y, self.spec.n_classes), y], 1)
        real = (y >= 0)[:, :, None]
        features = self.text_encoder.features(y) * real
        return F.normalize(self.text_head(features.sum(1) / real.sum(1).clamp(min=1)), dim=1)

    def embed_data(self, x: Tensor) -> Tensor:
        """Pictures (B, *shape) -> vectors of length one (B, dim)."""
        return F.normalize(self.image_encoder(x), dim=1)

    @torch.no_grad()
    def embed(self, items: str | list[str]) -> Tensor:
        """Texts -> vectors of length one (N, dim).

        Raises:
            ZooError: a text without tokens.
            DataError: a text that is too long.
        """
        texts = [items] if isinstance(items, str) else items
        if blank := [text for text in texts if not self.tokenizer.encode(text)]:
            raise ZooError(f"text={blank[0]!r}: empty. Give words.")
        return self.text_vectors(encode_texts(self.tokenizer, texts, self.length).to(self.device))

    # -- the objective ---------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The loss, the share of pictures whose caption is nearest, and the temperature."""
        pictures, texts, y = (
            gather_rows(self, part) for part in (self.embed_data(batch.x), self.text_vectors(batch.y), batch.y)
        )
        with torch.autocast(pictures.device.type, enabled=False):
            cosines = pictures.float() @ texts.float().T  # (B, B)
            scale = self.log_scale.exp().clamp(max=MAX_SCALE)
            logits = scale * cosines
            rows = y[:, None] if y.ndim == 1 else y
            equal = (rows[:, None] == rows).all(2)
            if self.bias is None:
                loss = symmetric_infonce(logits, equal)
            else:
                loss = sigmoid_loss(logits + self.bias - math.log(max(len(logits) - 1, 1)), equal)
        best = cosines.argmax(1)
        found = equal.gather(1, best[:, None]).float().mean()
        return {"loss": loss, "caption_found": found, "temperature": 1 / scale.detach()}

    def charts(self) -> dict[str, list[str]]:
        """Loss, captions found, temperature."""
        return {
            "loss": ["train/loss", "val/loss"],
            "captions found": ["train/caption_found", "val/caption_found"],
            "temperature": ["train/temperature"],
        }

    def hidden_layers(self) -> list[nn.Module]:
        """Both encoders."""
        return [self.image_encoder, self.text_encoder]

    def visuals(self, batch: Batch) -> Iterator[Visual]:
        """Yield cosines of held-out pictures (down) and captions (across): white is 1, and the diagonal is right."""
        with torch.no_grad():
            pictures, texts = self.embed_data(batch.x[:SHOWN]), self.text_vectors(batch.y[:SHOWN])
        n = len(pictures)
        table = (pictures @ texts.T).clamp(0, 1).repeat_interleave(8, 0).repeat_interleave(8, 1)
        yield Visual("similarities", Image(1, 8 * n, 8 * n), table[None, None].float())
