"""A causal network of a third party, registered as a backbone, under both objectives."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import zoo
from zoo.config.compose import compose, to_plain
from zoo.core import registry
from zoo.core.signature import PositiveInt
from zoo.core.spaces import Image, Tokens
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.char import Char
from zoo.nn.optim.muon import hidden_layers

TEXT = "the quick brown fox jumps over the lazy dog\n"


class RunningMean(nn.Module):
    """Predicts from the last token and the mean of all tokens up to it; its state is their sum and number."""

    context = float("inf")

    def __init__(self, n_in: int, n_out: int, context: int, *, width: PositiveInt = 8) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_in, width)
        self.mix = nn.Linear(2 * width, width)
        self.head = nn.Linear(width, n_out)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, n_out)."""
        x = self.embedding(tokens)
        mean = x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]
        return self._predict(x, mean)

    def _predict(self, x: Tensor, mean: Tensor) -> Tensor:
        return self.head(self.mix(torch.cat([x, mean], dim=-1)).tanh())

    def prefill(self, tokens: Tensor, padding: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        x = self.embedding(tokens)
        if padding is not None:
            x = x * (torch.arange(x.shape[1]) >= padding[:, None])[..., None]
        number = torch.full((len(x), 1), x.shape[1]) - (0 if padding is None else padding[:, None])
        state = [x.sum(1), number]
        return self._predict(self.embedding(tokens[:, -1]), state[0] / number), state

    def step(self, tokens: Tensor, state: list[Tensor]) -> Tensor:
        x = self.embedding(tokens)
        state[:] = [state[0] + x, state[1] + 1]
        return self._predict(x, state[0] / state[1])

    def reorder(self, state: list[Tensor], rows: Tensor) -> None:
        state[:] = [part[rows] for part in state]


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    with registry.isolated():
        registry.register("backbone", "running_mean")(RunningMean)
        yield


def text_spec() -> DataSpec:
    tokenizer = Char().fit([TEXT])
    return DataSpec(Tokens(16, tokenizer.vocab_size, dumps(tokenizer)), name="fox")


def train(model: Any, batch: Batch, steps: int = 60) -> tuple[float, float]:
    """Loss before and after steps of the model's own optimizer."""
    optimizer = model.optimizer_config.build([{"params": list(model.parameters())}], hidden=list(hidden_of(model)))
    first = model.loss(batch)["loss"].item()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model.loss(batch)["loss"]
        loss.backward()
        optimizer.step()
    return first, loss.item()


def hidden_of(model: Any) -> Iterator[Tensor]:
    for module in model.hidden_layers():
        yield from module.parameters()


def test_it_is_chosen_by_name_and_its_settings_are_checked() -> None:
    settings = to_plain(compose("model=language_model", "model/backbone=running_mean", "model.backbone.width=5").model)
    assert settings["backbone"] == {"name": "running_mean", "width": 5}
    with pytest.raises(zoo.ZooError, match="unknown setting 'widht'"):
        zoo.create_model("language_model", data=text_spec(), backbone={"name": "running_mean", "widht": 5})


def test_it_trains_samples_and_generates_text() -> None:
    torch.manual_seed(0)
    model = zoo.create_model("language_model", data=text_spec(), backbone={"name": "running_mean", "width": 16})
    ids = torch.tensor(model.tokenizer.encode(TEXT * 4))
    windows = ids[: len(ids) // 17 * 17].view(-1, 17)
    before, after = train(model, Batch(windows[:, :-1], windows[:, 1:]))
    assert after < before / 2
    assert model.sample(3, generator=torch.Generator().manual_seed(0)).shape == (3, 16)
    together = model.generate(["the quick", "d"], max_new_tokens=20, temperature=0)
    for prompt, done in zip(("the quick", "d"), together, strict=True):
        (alone,) = model.generate([prompt], max_new_tokens=20, temperature=0)
        assert alone.tokens == done.tokens
    row = [model.begin, *model.tokenizer.encode("the quick")]
    with torch.no_grad():
        assert model.net(torch.tensor([row]))[0, -1].argmax() == together[0].tokens[0]


def test_it_trains_and_samples_pixels() -> None:
    torch.manual_seed(0)
    spec = DataSpec(Image(1, 4, 4, levels=2), name="tiny")
    model = zoo.create_model("pixel_transformer", data=spec, backbone="running_mean")
    x = torch.zeros(8, 1, 4, 4)
    x[:, :, 2:] = 1.0
    before, after = train(model, Batch(x, torch.zeros(8, dtype=torch.long)), steps=200)
    assert after < before / 2
    assert model.sample(5).shape == (5, 1, 4, 4)


def test_muon_leaves_embedding_and_head_out_of_a_network_without_blocks() -> None:
    net = RunningMean(5, 5, 8)
    assert hidden_layers(net) == [net.mix]
    model = zoo.create_model("gpt", data=text_spec())
    assert hidden_layers(model.net) == [model.net.blocks]
