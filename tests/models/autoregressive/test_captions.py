"""Images given captions: exact conditional probabilities, samples from them, and a likelihood that needs the text."""

import itertools
import math
from pathlib import Path

import pytest
import torch

import zoo
from tests.models.autoregressive.networks import SMALL, shaken
from zoo.core.spaces import ABSENT, Image, Label, Tokens
from zoo.data.batch import Batch
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.word import Word
from zoo.evaluation.context import EvaluationConfig, EvaluationContext
from zoo.evaluation.suites.bayes_rule import BayesRuleSuite
from zoo.evaluation.suites.likelihood import LikelihoodSuite
from zoo.models.autoregressive.pixel_transformer import PixelTransformer

TEXTS = ["left", "right", "the left column"]
WORDS = Word().fit(TEXTS)
TEXT = Tokens(3, WORDS.vocab_size, dumps(WORDS))
SPEC = zoo.DataSpec(Image(1, 2, 2, levels=2), TEXT, name="columns")
# Without the caption, the empty picture has probability 1/4, and each of the 6 others 1/8.
MIXED = 0.25 * math.log(4) + 0.75 * math.log(8)
LSTM = {"name": "lstm", "d_model": 16, "n_layers": 1}


def make(backbone: dict | None = None, **given) -> PixelTransformer:
    torch.manual_seed(0)
    return PixelTransformer(SPEC, backbone=backbone or SMALL, **given)


def pictures() -> torch.Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=4))).view(16, 1, 2, 2)


@pytest.mark.parametrize("backbone", [SMALL, LSTM])
def test_probabilities_given_each_caption_sum_to_one(backbone: dict) -> None:
    model, x = shaken(make(backbone)).double(), pictures().double()
    captions = [*model.text_condition(TEXTS), torch.full((3,), ABSENT)]
    with torch.no_grad():
        each = torch.stack([model.log_prob(x, caption.expand(16, -1)) for caption in captions])
        torch.testing.assert_close(each.exp().sum(1), torch.ones(4, dtype=torch.float64))
        assert torch.pdist(each).min() > 1e-3, "every caption has a distribution of its own"
        torch.testing.assert_close(model.log_prob(x), each[3])
        # The negative control: scores of a network that has read the pixel are not probabilities.
        inputs, target = model._inputs_and_target(Batch(x, captions[0].expand(16, -1)))
        late = torch.cat([inputs, target[:, -1:]], 1)[:, 1:]
        seen = model.net(late)[:, model.n_words :].log_softmax(2).gather(2, target[..., None]).sum((1, 2))
        assert abs(float(seen.exp().sum()) - 1) > 1e-3


def test_samples_given_a_caption_follow_its_distribution() -> None:
    model = shaken(make()).eval()
    y = model.text_condition(["left"]).expand(4000, -1)
    with torch.no_grad():
        p, other = (model.log_prob(pictures(), caption.expand(16, -1)).exp() for caption in (y[0], y[0].roll(1)))
    drawn = model.sample(4000, condition=y, generator=torch.Generator().manual_seed(0)).flatten(1).long()
    counts = torch.bincount(drawn @ torch.tensor([8, 4, 2, 1]), minlength=16)

    def statistic(p: torch.Tensor) -> float:
        return float(((counts - 4000 * p).square() / (4000 * p)).sum())

    assert statistic(p) < 45  # 15 degrees of freedom: p = 8e-5
    assert statistic(other) > 45
    one = model.sample(3, condition=y[:3], generator=torch.Generator().manual_seed(1))
    assert torch.equal(one, model.sample(3, condition=y[:3], generator=torch.Generator().manual_seed(1)))


def columns(n: int, seed: int) -> Batch:
    """Noise in one column, and a caption that names it."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(2, (n, 1, 2, 2), generator=generator).float()
    right = torch.randint(2, (n,), generator=generator)
    x[torch.arange(n), :, :, 1 - right] = 0
    texts = make().text_condition(["left", "right"])
    return Batch(x, texts[right])


def test_the_text_matters_after_training_and_only_then() -> None:
    """The optimum is 2 ln 2 nats with the caption, and MIXED without. Shuffled captions are the negative control."""

    def trained(shuffle: bool) -> PixelTransformer:
        model = make(label_dropout=0.2).train()
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for step in range(260):
            x, y = columns(64, step)
            optimizer.zero_grad()
            model.loss(Batch(x, y.roll(1, 0) if shuffle else y))["loss"].backward()
            optimizer.step()
        return model.eval()

    def nats(model: PixelTransformer, y: torch.Tensor | None) -> float:
        return float(-model.log_prob(x, y).mean())

    x, y = columns(2000, 1000)
    left = (y == y[0]).all(1, keepdim=True)
    wrong = torch.where(left, y[~left[:, 0]][0], y[0])  # the caption of the other column
    models = trained(False), trained(True)
    with torch.no_grad():
        assert nats(models[0], y) == pytest.approx(2 * 0.6931, abs=0.06)
        assert nats(models[0], None) == pytest.approx(MIXED, abs=0.08)
        assert nats(models[0], wrong) > nats(models[0], None) + 0.5
        assert nats(models[1], y) == pytest.approx(nats(models[1], wrong), abs=0.08)
        assert nats(models[1], y) == pytest.approx(MIXED, abs=0.08)


@pytest.mark.parametrize("wrong", [False, True])
def test_classes_by_bayes_rule(wrong: bool) -> None:
    """A model whose image is the number of its text: every class is found, and none with the wrong texts."""
    texts = [["left", "the left column"], ["right"]]
    tokens = [make().text_condition(some) for some in texts]
    x = torch.tensor([0.0, 1.0, 0.0]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    y = torch.cat([tokens[0][:1], tokens[1], tokens[0][1:]])

    class Known:
        spec, given, device, abilities = SPEC, TEXT, torch.device("cpu"), {"log_prob": "exact likelihood"}
        text_condition = staticmethod(make().text_condition)

        def log_prob(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            right = (y == tokens[1][0]).all(1).float()
            return -(x[:, 0, 0, 0] - (1 - right if wrong else right)).abs()

    class Data(zoo.DataModule):
        spec, class_texts = SPEC, texts

        def load(self) -> None:
            self.train = self.val = self.test = x, y

    data = Data(1, 0)
    data.setup()
    assert BayesRuleSuite().applies(Known(), data)
    (found,) = BayesRuleSuite().measure(EvaluationContext(Known(), data, EvaluationConfig())).values()
    assert found.value == (0 if wrong else 1)
    assert not BayesRuleSuite().applies(make(conditional=False), data)


def test_what_is_ignored_and_what_is_refused() -> None:
    plain = make(conditional=False)
    assert plain.given is None
    assert plain.net.context == 4
    with torch.no_grad():
        assert torch.equal(plain.loss(columns(8, 0))["loss"], plain.loss(Batch(columns(8, 0).x, None))["loss"])
    with pytest.raises(zoo.ZooError, match="not conditioned on texts"):
        plain.text_condition(["left"])
    with pytest.raises(zoo.ZooError, match="unconditional"):
        plain.sample(1, condition=make().text_condition(["left"]))
    with pytest.raises(zoo.ZooError, match="2 for 3 samples"):
        make().sample(3, condition=make().text_condition(["left", "right"]))
    with pytest.raises(zoo.ZooError, match="no class labels"):
        make(conditional=True)
    labelled = PixelTransformer(zoo.DataSpec(Image(1, 2, 2, levels=2), Label(2)), backbone=SMALL)
    assert labelled.given is None
    assert not labelled.conditional


def test_digits_are_drawn_from_the_command_line_and_scored(tmp_path: Path, cli) -> None:
    from zoo.cli.main import main

    run = tmp_path / "run"
    zoo.fit("image_gpt", "captioned_digits", folder=run, max_steps=3, progress=False)
    told = cli("sample", str(run), "--prompt", "a seven", "-n", "2", "--out", "seven.png", entry=main)
    assert told.code == 0, told.err
    assert (tmp_path / "seven.png").stat().st_size > 100
    model, data = zoo.load(run).eval(), zoo.create_data("captioned_digits")
    data.setup()
    with torch.no_grad():
        found = LikelihoodSuite().measure(EvaluationContext(model, data, EvaluationConfig()))
        nats = torch.cat(
            [-model.log_prob(b.x, b.y) for b in EvaluationContext(model, data, EvaluationConfig()).batches()]
        )
    named = {name.partition("@")[0]: metric.value for name, metric in found.items()}
    assert set(named) == {"nll_given_text", "nll_given_other_text", "bpd"}
    assert named["nll_given_text"] == pytest.approx(float(nats.double().mean()), rel=1e-5)
    assert named["nll_given_text"] != named["nll_given_other_text"]
    (shown,) = model.visuals(Batch(*data.fetch(data.val, torch.arange(4), torch.Generator(), train=False)))
    assert shown.tensor.shape == (8, 1, 8, 8)
