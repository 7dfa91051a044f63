"""CLIP finds the partner of pictures and captions, and not where pairs are shuffled; search by text works."""

import math

import pytest
import torch

import zoo
from tests.contracts.specs import SPECS, examples
from zoo.data.batch import Batch
from zoo.evaluation.context import EvaluationConfig, EvaluationContext
from zoo.evaluation.suites.retrieval import RetrievalSuite
from zoo.models.embedding.clip import CLIP
from zoo.nn.losses.contrastive import sigmoid_loss, symmetric_infonce

SMALL = {
    "encoder": {"name": "mlp", "width": 64, "depth": 1},
    "backbone": {"name": "transformer_encoder", "d_model": 32, "n_heads": 2, "n_layers": 1, "dropout": 0.0},
}


@pytest.fixture(scope="module")
def data():
    found = zoo.create_data("captioned_digits", batch_size=128)
    found.setup()
    return found


@pytest.fixture(scope="module")
def trained(data) -> CLIP:
    torch.manual_seed(0)
    model = CLIP(data.spec, **SMALL)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(120):
        rows = torch.randint(len(data.train[0]), (128,), generator=generator)
        optimizer.zero_grad()
        model.loss(Batch(*data.fetch(data.train, rows, generator, train=True)))["loss"].backward()
        optimizer.step()
    return model.eval()


def measured(model: CLIP, data) -> dict[str, float]:
    with torch.no_grad():
        found = RetrievalSuite().measure(EvaluationContext(model, data, EvaluationConfig()))
    return {name.partition("@")[0]: metric.value for name, metric in found.items()}


def test_digits_are_classified_by_texts_alone_and_shuffled_pairs_are_not(trained: CLIP, data) -> None:
    """The permutation test: with pictures in another order, recall falls to chance."""
    found = measured(trained, data)
    assert found["zero_shot_accuracy"] > 0.85
    assert found["caption_recall10"] > 0.8
    before = data.test
    try:
        data.test = before[0].roll(1, 0), before[1]
        shuffled = measured(trained, data)
    finally:
        data.test = before
    assert shuffled["zero_shot_accuracy"] < 0.1 + 4 * math.sqrt(0.09 / len(before[0]))
    assert shuffled["caption_recall1"] < 0.15 < found["caption_recall1"]


def test_vectors_have_length_one_and_do_not_depend_on_the_batch(trained: CLIP, data) -> None:
    x, y = data.fetch(data.test, torch.arange(6), torch.Generator(), train=False)
    texts = [data.tokenizer.decode(t for t in row.tolist() if t >= 0) for row in y]
    with torch.no_grad():
        pictures, captions = trained.embed_data(x), trained.embed(texts)
        torch.testing.assert_close(pictures.norm(dim=1), torch.ones(6))
        torch.testing.assert_close(captions.norm(dim=1), torch.ones(6))
        torch.testing.assert_close(trained.embed(texts[2])[0], captions[2])
        torch.testing.assert_close(trained.text_vectors(y), captions)
    with pytest.raises(zoo.ZooError, match="empty"):
        trained.embed([""])
    with pytest.raises(zoo.DataError, match="tokens, more than"):
        trained.embed("one " * 50)


@pytest.mark.parametrize("loss", ["infonce", "siglip"])
def test_the_loss_is_that_of_the_similarities_without_equal_captions(loss: str) -> None:
    torch.manual_seed(0)
    model = CLIP(SPECS["image"], loss=loss, **SMALL).eval()
    batch = examples(SPECS["image"], 12)
    assert len(set(batch.y.tolist())) < 12, "some labels occur twice"
    cosines = model.embed_data(batch.x) @ model.text_vectors(batch.y).T
    logits, equal = cosines / 0.1, batch.y[:, None] == batch.y
    value = model.loss(batch)["loss"]
    if loss == "infonce":
        torch.testing.assert_close(value, symmetric_infonce(logits, equal))
        assert float(value) != pytest.approx(float(symmetric_infonce(logits)))
    else:
        torch.testing.assert_close(value, sigmoid_loss(logits - math.log(11), equal))
        start = sigmoid_loss(torch.zeros(12, 12) - math.log(11))
        chance = -math.log(1 / 12) - 11 * math.log(11 / 12)
        assert float(start) == pytest.approx(chance), "the bias begins at the share of right pairs"
    with torch.no_grad():
        model.log_scale.fill_(10)
    assert float(model.loss(batch)["temperature"]) == pytest.approx(0.01), "it is clamped"


def test_labels_are_tokens_and_do_not_embed_words() -> None:
    model = CLIP(SPECS["image"], **SMALL)
    assert "embed" not in model.abilities
    assert "embed_data" in model.abilities
    with pytest.raises(zoo.DataError, match="no captions"):
        CLIP(zoo.DataSpec(SPECS["image"].x), **SMALL)


def test_pictures_are_found_by_words(tmp_path, data) -> None:
    from zoo.cli.embed_texts import embed_texts
    from zoo.retrieval.build import build_index, search

    zoo.fit("clip", "captioned_digits", folder=tmp_path / "run", max_steps=60, progress=False)
    index = build_index(tmp_path / "index", tmp_path / "run", split="test")
    hits = search(index, "the digit seven", 10)
    assert len(hits) == 10
    assert sum("seven" in hit.metadata["caption"] for hit in hits) >= 5
    with pytest.raises(zoo.ConfigError, match="no texts to embed"):
        embed_texts(tmp_path / "run")
    with pytest.raises(zoo.ConfigError, match="--nearest: clip does not have a vector for each word"):
        embed_texts(tmp_path / "run", ["seven"], nearest=3)
