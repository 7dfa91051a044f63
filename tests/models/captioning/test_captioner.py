"""Captions: exact likelihoods, samples that follow them, and pictures that matter."""

import math
from collections import Counter

import pytest
import torch
from torchvision.utils import save_image

import zoo
from tests.contracts.specs import SPECS, examples
from zoo.cli.main import main
from zoo.core.spaces import ABSENT
from zoo.data.batch import Batch
from zoo.data.image.captioned_digits import CAPTIONS
from zoo.data.loader import make_generator
from zoo.data.text.tokenizers.base import encode_texts
from zoo.evaluation.context import EvaluationConfig, EvaluationContext
from zoo.evaluation.suites.captions import CaptionSuite, exact, words
from zoo.models.captioning.captioner import Captioner
from zoo.nn.samplers.sampling_params import SamplingParams

SMALL = {
    "n_features": 4,
    "d_model": 32,
    "n_layers": 1,
    "n_heads": 2,
    "encoder": {"name": "mlp", "width": 64, "depth": 1},
}


@pytest.fixture(scope="module")
def data():
    found = zoo.create_data("captioned_digits", batch_size=64)
    found.setup()
    return found


@pytest.fixture(scope="module")
def trained(data) -> Captioner:
    torch.manual_seed(0)
    model = Captioner(data.spec, **SMALL)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    generator = make_generator(0)
    for _ in range(200):
        rows = torch.randint(len(data.train[0]), (64,), generator=generator)
        optimizer.zero_grad()
        model.loss(Batch(*data.fetch(data.train, rows, generator, train=True)))["loss"].backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def batch(data) -> Batch:
    return Batch(*data.fetch(data.test, torch.arange(40), torch.Generator(), train=False))


def test_the_likelihood_is_the_product_over_single_steps(trained: Captioner, batch: Batch) -> None:
    """Token by token with a cache, each picture alone, against all captions at once."""
    found = trained.caption_log_prob(batch.x[:6], batch.y[:6]).detach()
    for x, y, value in zip(batch.x, batch.y, found, strict=False):
        with torch.no_grad():
            net = trained.net.after(x[None])
            logits, state = net.prefill(torch.tensor([[trained.begin]]))
            total = 0.0
            for token in y[y >= 0]:
                total += float(logits.log_softmax(1)[0, token])
                logits = net.step(token[None], state)
            total += float(logits.log_softmax(1)[0, trained.end])
        assert float(value) == pytest.approx(total, abs=1e-4)
    assert not torch.allclose(trained.caption_log_prob(batch.x[:6].roll(1, 0), batch.y[:6]), found, atol=0.1)


def test_sampled_frequencies_are_the_probabilities(trained: Captioner, data, batch: Batch) -> None:
    """Of all 40 captions for one picture; those of another picture do not fit."""
    n, rows = 3000, encode_texts(data.tokenizer, CAPTIONS, data.spec.condition.length)

    def probabilities(x: torch.Tensor) -> torch.Tensor:
        return trained.caption_log_prob(x.expand(len(rows), -1, -1, -1), rows).exp().detach().double()

    drawn = trained.caption(batch.x[:1].expand(n, -1, -1, -1), temperature=1.0, generator=make_generator(3))
    counts = Counter(drawn)
    share = torch.tensor([counts[caption] / n for caption in CAPTIONS], dtype=torch.float64)
    p = probabilities(batch.x[0])
    assert 0.9 < float(p.sum()) <= 1 + 1e-5
    assert bool(((share - p).abs() < 4.5 * (p * (1 - p) / n).sqrt() + 2 / n).all())
    assert counts.total() - sum(counts[c] for c in CAPTIONS) < n * (1 - float(p.sum())) + 4.5 * math.sqrt(n * 0.1)
    other = next(x for x, y in zip(*batch, strict=True) if CAPTIONS.index(text(data, y)) // 4 != wanted(data, batch))
    q = probabilities(other)
    assert not bool(((share - q).abs() < 4.5 * (q * (1 - q) / n).sqrt() + 2 / n).all())
    assert trained.caption(batch.x[:5], temperature=1.0, seed=1) == trained.caption(
        batch.x[:5], temperature=1.0, seed=1
    )


def text(data, row: torch.Tensor) -> str:
    return data.tokenizer.decode([token for token in row.tolist() if token >= 0])


def wanted(data, batch: Batch) -> int:
    """Class of the first picture."""
    return CAPTIONS.index(text(data, batch.y[0])) // 4


def test_digits_are_named_and_shuffled_pictures_are_not(trained: Captioner, data, batch: Batch) -> None:
    with torch.no_grad():
        found = CaptionSuite().measure(EvaluationContext(trained, data, EvaluationConfig()))
        values = {name.partition("@")[0]: metric.value for name, metric in found.items()}
        assert values["caption_class"] > 0.85
        assert math.log(4) - 0.1 < values["caption_nll"] < 3, "one of four texts is drawn for each digit"
        greedy = [a == text(data, b) for a, b in zip(trained.caption(batch.x), batch.y, strict=True)]
        assert sum(greedy) / len(greedy) == pytest.approx(float(trained.loss(batch)["caption_right"]))
        before = data.test
        try:
            data.test = before[0].roll(1, 0), before[1]
            shuffled = CaptionSuite().measure(EvaluationContext(trained, data, EvaluationConfig()))
        finally:
            data.test = before
    apart = {name.partition("@")[0]: metric.value for name, metric in shuffled.items()}
    assert apart["caption_class"] < 0.1 + 4.5 * math.sqrt(0.09 / len(before[0]))
    assert apart["caption_nll"] > values["caption_nll"] + 1


def test_targets_end_once_and_words_are_hidden_in_training_alone(trained: Captioner, batch: Batch) -> None:
    y = torch.tensor([[5, 6, 7], [5, ABSENT, ABSENT]])
    end = trained.end
    assert trained.targets(y).tolist() == [[5, 6, 7, end], [5, end, ABSENT, ABSENT]]
    torch.manual_seed(0)
    model = Captioner(trained.spec, word_dropout=0.9, **SMALL)
    target = model.targets(batch.y)
    assert not torch.equal(model.logits(batch.x, target), model.logits(batch.x, target))
    model.eval()
    assert torch.equal(model.logits(batch.x, target), model.logits(batch.x, target))


def test_captions_do_not_depend_on_the_batch_and_labels_are_texts(trained: Captioner, batch: Batch) -> None:
    together = trained.sample_captions(batch.x, SamplingParams(temperature=0))
    alone = torch.cat([trained.sample_captions(x[None], SamplingParams(temperature=0)) for x in batch.x])
    assert torch.equal(together, alone)
    assert trained.caption(batch.x[:0]) == []
    labelled = Captioner(SPECS["image"], **SMALL).eval()
    assert "caption" not in labelled.abilities
    some = examples(SPECS["image"], 4)
    assert labelled.caption_log_prob(some.x, some.y).shape == (4,)
    with pytest.raises(zoo.DataError, match="no captions"):
        Captioner(zoo.DataSpec(SPECS["image"].x), **SMALL)


def test_scores_of_captions() -> None:
    assert exact("a b", "a b") == 1
    assert exact("a b", "a c") == 0
    assert words("a b", "a c d") == pytest.approx(1 / 3)
    assert words("b a", "a b") == 0


def test_a_picture_is_captioned_from_the_command_line(tmp_path, cli, batch: Batch) -> None:
    run = tmp_path / "run"
    zoo.fit("captioner", "captioned_digits", folder=run, max_steps=20, progress=False)
    save_image(batch.x[0], tmp_path / "in.png")
    given = ["caption", str(run), "--image", str(tmp_path / "in.png")]
    one, two = (cli(*given, "temperature=1", "-n", "3", "--seed", "4", entry=main) for _ in range(2))
    assert one.code == 0, one.err
    assert one.out == two.out
    assert len(one.out.strip().splitlines()) == 3
    wrong = cli(*given, "heat=1", entry=main)
    assert wrong.code != 0
    assert "heat" in wrong.err
    assert "generated" in (run / "samples" / "final.txt").read_text()
