"""SimCSE: vectors of sentences, learned from two dropout masks or from pairs of sentences."""

from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core import registry
from zoo.core.errors import ConfigError, DataError, ZooError
from zoo.core.registry import register
from zoo.core.signature import Component, DropoutRate, Positive
from zoo.core.spaces import ABSENT, Pair, Tokens
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.data.text.tokenizers.base import loads
from zoo.metrics.alignment_uniformity import alignment, uniformity
from zoo.models.base import Model
from zoo.models.masked.base import strip_padding
from zoo.nn.losses.contrastive import infonce
from zoo.nn.optim.components import Optimizer

SEED = 32_000_000  # of the dropout masks of validation


@register("model", "simcse")
class SimCSE(Model):
    """A text model whose mean state is near for two forms of a sentence (Gao, Yao & Chen 2021).

    The two forms are the same sentence with two dropout masks, or the two texts of a pair. Each first form must find
    its second form among those of the batch. Equal sentences are not negatives of each other. A head of one layer is
    used in the loss alone. `embed` gives the mean state before it. `loss` is in nats per sentence.

    A sentence is the longest text in a window, or each text of a pair. Negatives are those of one process.

    Args:
        spec: text, or pairs of texts.
        text_model: the model whose states are used: bert, or language_model. `init_from=RUN` takes it from a run.
        positives: "dropout", or "pairs" for the two texts of a pair, such as a sentence and its translation.
        dropout: of the text model's network.
        temperature: that cosine similarities are divided by.
        optimizer: with its learning rate and schedule.

    Raises:
        ConfigError: a text model without states of tokens.
        DataError: `positives=pairs` on data without pairs.
    """

    accepts = (Tokens, Pair)
    paper = "Gao, Yao & Chen 2021 (arXiv:2104.08821); Wang & Isola 2020 (arXiv:2005.10242)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        text_model: Annotated[str | dict[str, Any], Component("model", pretrained=True)] = "bert",
        positives: Literal["dropout", "pairs"] = "dropout",
        dropout: DropoutRate = 0.1,
        temperature: Positive = 0.05,
        optimizer: Optimizer = "adamw",
    ) -> None:
        super().__init__(spec)
        text = spec.tokens
        if positives == "pairs" and not isinstance(spec.x, Pair):
            raise DataError(f"model.positives=pairs: {spec} has no pairs. Choose data of pairs, or positives=dropout.")
        self.tokenizer: Any = loads(text.tokenizer, text.vocab_size) if text.tokenizer else None
        if self.tokenizer is None:
            self.lacks("embed")
        self.text_model: Any = registry.build(
            "model", self.with_dropout(text_model, dropout), DataSpec(text, name=spec.name), where="model.text_model"
        )
        net: Any = getattr(self.text_model, "net", None)
        reader = getattr(net, "features", None) or getattr(net, "hidden_states", None)
        if reader is None:
            raise ConfigError(
                f"model.text_model={self.text_model.registered_name}: without states of tokens. Choose bert, or "
                "language_model."
            )
        self.padded = hasattr(net, "features")  # whether its network reads negative tokens as padding
        if isinstance(getattr(net, "head", None), nn.Module):
            net.head.requires_grad_(False)  # predicts tokens, which the loss does not
        with torch.no_grad():
            width = self.states(torch.zeros(1, 1, dtype=torch.long)).shape[2]
        self.head = nn.Sequential(nn.Linear(width, width), nn.Tanh())

    @staticmethod
    def with_dropout(chosen: str | dict[str, Any], dropout: float) -> dict[str, Any]:
        """Settings of a text model, with this dropout in its network.

        Raises:
            ConfigError: the model does not have a network for tokens.
        """
        chosen = {"name": chosen} if isinstance(chosen, str) else dict(chosen)
        default = {s.name: s.default for s in registry.peek("model", chosen["name"]).settings}
        network = chosen.get("backbone", default.get("backbone"))
        if network is None:
            raise ConfigError(f"model.text_model={chosen['name']}: without a backbone. Choose bert, or language_model.")
        network = {"name": network} if isinstance(network, str) else dict(network)
        return chosen | {"backbone": network | {"dropout": dropout}}

    @property
    def end(self) -> int:
        """Token after a text."""
        return self.spec.tokens.vocab_size - 1 if self.tokenizer is None else self.tokenizer.end

    # -- vectors ---------------------------------------------------------------------------------------------

    def states(self, tokens: Tensor) -> Tensor:
        """States (B, T, D) of tokens (B, T), negative for padding at the end."""
        net = self.text_model.net
        found: Tensor = net.features(tokens) if self.padded else net.hidden_states(tokens.clamp(min=0))
        return found

    def pool(self, tokens: Tensor) -> Tensor:
        """Mean states (B, D) of tokens (B, T), negative for padding at the end."""
        real = (tokens >= 0)[..., None]
        return (self.states(tokens) * real).sum(1) / real.sum(1).clamp(min=1)

    def rows(self, texts: list[list[int]]) -> Tensor:
        """Token ids of texts, each cut to the context with its end, as one tensor (N, T), negative for padding."""
        size = self.spec.tokens.length
        cut = [[*ids[: size - 1], self.end] for ids in texts]
        width = max(map(len, cut), default=1)
        found = [row + [ABSENT] * (width - len(row)) for row in cut]
        return torch.tensor(found, dtype=torch.long, device=self.device).view(len(cut), width)

    @torch.no_grad()
    def embed(self, items: str | list[str]) -> Tensor:
        """Texts -> vectors (N, D); a longer text is cut to the context.

        Raises:
            ZooError: a text without tokens.
        """
        texts = [items] if isinstance(items, str) else items
        ids = [self.tokenizer.encode(text) for text in texts]
        if blank := [text for text, row in zip(texts, ids, strict=True) if not row]:
            raise ZooError(f"text={blank[0]!r}: empty. Give words.")
        return self.pool(self.rows(ids))

    # -- the objective ---------------------------------------------------------------------------------------

    def sentences(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """First and second form of each sentence: tokens (N, T) each, negative for padding."""
        x, y = batch
        if isinstance(self.spec.x, Pair):
            width = max(x.shape[1], y.shape[1])
            x, y = (F.pad(one, (0, width - one.shape[1]), value=ABSENT) for one in (x, y))
            if self.hparams["positives"] == "pairs":
                return x, y
            both = torch.cat([x, y])
            return both, both
        ends = [self.end] if self.tokenizer is None else [*self.tokenizer.ends, self.tokenizer.begin]
        found = longest_texts(strip_padding(batch), ends, self.end)
        return found, found

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The loss, the share of sentences whose other form is nearest, alignment and uniformity."""
        one, two = self.sentences(batch)
        both = F.normalize(self.head(self.pool(torch.cat([one, two]))), dim=1)
        with torch.autocast(both.device.type, enabled=False):
            first, second = both.float().chunk(2)  # (N, D)
            cosines = first @ second.T
            equal = (one[:, None] == one).all(2) | (two[:, None] == two).all(2)
            terms = {"loss": infonce(cosines / self.hparams["temperature"], equal).mean()}
            found = equal.gather(1, cosines.argmax(1, keepdim=True)).float().mean()
            terms |= {"form_found": found, "alignment": alignment(first, second).detach()}
            if len(first) > 1:
                terms["uniformity"] = uniformity(first.detach())
        return terms

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the terms with dropout as in training, and with the same masks at every validation."""
        devices = [] if self.device.type == "cpu" else [self.device]
        with torch.random.fork_rng(devices):
            torch.manual_seed(SEED + batch_idx)
            self.train()
            terms = self.loss(batch)
            self.eval()
        self.log_epoch_mean({f"val/{name}": value for name, value in terms.items()}, len(batch))

    # -- training --------------------------------------------------------------------------------------------

    def hidden_layers(self) -> list[nn.Module]:
        """Those of the text model."""
        layers: list[nn.Module] = self.text_model.hidden_layers()
        return layers

    def charts(self) -> dict[str, list[str]]:
        """Loss, sentences found, alignment and uniformity."""
        names = {"forms found": "form_found", "alignment": "alignment", "uniformity": "uniformity"}
        return {"loss": ["train/loss", "val/loss"]} | {
            title: [f"train/{name}", f"val/{name}"] for title, name in names.items()
        }


def longest_texts(windows: Tensor, ends: list[int], end: int) -> Tensor:
    """The longest text of each window, the first one of several: tokens (B, T), with its end, then negative.

    Args:
        windows: tokens (B, T), negative for padding; a text lies between two of the ends.
        ends: tokens between texts.
        end: token to put after a text, which is cut to T - 1 tokens.
    """
    size = windows.shape[1]
    outside = torch.isin(windows, torch.tensor(ends, device=windows.device)) | (windows < 0)
    number = outside.cumsum(1)  # of the text at each place (B, T)
    lengths = torch.zeros(len(windows), size + 1, dtype=torch.long, device=windows.device)
    lengths.scatter_add_(1, number, (~outside).long())
    best = lengths.argmax(1, keepdim=True)
    others = outside | (number != best)
    tokens = windows.gather(1, others.long().sort(dim=1, stable=True).indices)  # the text comes first
    n = lengths.gather(1, best).clamp(max=size - 1)
    column = torch.arange(size, device=windows.device)
    return tokens.masked_fill(column == n, end).masked_fill(column > n, ABSENT)
