"""SimCLR: the loss of two views, features that read digits better than untrained ones, and their use by an index."""

import pytest
import torch

import zoo
from tests.contracts.specs import SPECS, examples
from zoo.data.batch import Batch
from zoo.evaluation.context import EvaluationConfig, EvaluationContext
from zoo.evaluation.suites.probe import ProbeSuite, few_of_each
from zoo.models.embedding.simclr import SimCLR
from zoo.nn.losses.contrastive import nt_xent

SMALL = {"dim": 16, "projection_dim": 16, "encoder": {"name": "mlp", "width": 64, "depth": 1}}


@pytest.fixture(scope="module")
def data():
    found = zoo.create_data("digits", batch_size=128)
    found.setup()
    return found


def trained(data, batches: int) -> SimCLR:
    torch.manual_seed(0)
    model = SimCLR(data.spec, **SMALL)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(batches):
        rows = torch.randint(len(data.train[0]), (128,), generator=generator)
        optimizer.zero_grad()
        model.loss(Batch(*data.fetch(data.train, rows, generator, train=True)))["loss"].backward()
        optimizer.step()
    return model.eval()


def accuracies(model: SimCLR, data) -> dict[str, float]:
    with torch.no_grad():
        found = ProbeSuite().measure(EvaluationContext(model, data, EvaluationConfig(split="held_out")))
    return {name.partition("@")[0]: metric.value for name, metric in found.items()}


def test_training_without_labels_makes_few_labels_go_further(data) -> None:
    """Beside the same encoder before the training; shuffled pictures are the negative control."""
    after, before = accuracies(trained(data, 200), data), accuracies(trained(data, 0), data)
    few = "linear_accuracy_10_per_class"
    assert after[few] > before[few] + 0.05
    assert after["knn5_accuracy"] > before["knn5_accuracy"]
    assert {name: value for name, value in after.items() if name.endswith("raw")} == {
        name: value for name, value in before.items() if name.endswith("raw")
    }
    x, y = data.train
    try:
        data.train = x.roll(1, 0), y
        assert max(accuracies(trained(data, 0), data).values()) < 0.25
    finally:
        data.train = x, y


def test_few_labels_are_of_every_class_and_of_a_seed() -> None:
    labels = torch.tensor([0] * 30 + [1] * 4 + [3] * 12)
    chosen = few_of_each(labels, 1)
    assert torch.bincount(labels[chosen]).tolist() == [10, 4, 0, 10]
    assert torch.equal(chosen, few_of_each(labels, 1))
    assert not torch.equal(chosen, few_of_each(labels, 2))
    assert len(set(chosen.tolist())) == 24


def test_the_loss_is_that_of_two_views_without_the_labels() -> None:
    torch.manual_seed(0)
    model = SimCLR(SPECS["image"], temperature=0.3, **SMALL).eval()
    batch = examples(SPECS["image"], 12)
    torch.manual_seed(5)
    terms = {name: value.detach() for name, value in model.loss(batch).items()}
    torch.manual_seed(5)
    views = [model.view(batch.x) for _ in range(2)]
    heads = [model.projection(model.embed_data(view).relu()).detach() for view in views]
    torch.testing.assert_close(terms["loss"], nt_xent(*heads, 0.3))
    assert float(terms["loss"]) != pytest.approx(float(nt_xent(heads[0], heads[1].roll(1, 0), 0.3)))
    torch.manual_seed(5)
    assert torch.equal(model.loss(Batch(batch.x, batch.y.roll(1)))["loss"], terms["loss"])
    assert all(0 <= float(view.min()) <= float(view.max()) <= 1 for view in views)
    equal = SimCLR(SPECS["image"], augmentation="none", **SMALL).eval().loss(batch)
    assert float(equal["view_found"]) == 1, "without changes there is nothing to learn"


def test_similar_pictures_are_found(tmp_path) -> None:
    from zoo.cli.embed_texts import embed_texts
    from zoo.retrieval.build import build_index

    zoo.fit("simclr", "digits", folder=tmp_path / "run", max_steps=10, progress=False)
    index = build_index(tmp_path / "index", tmp_path / "run", split="test")
    ids, vectors = index.vectors()
    hits = index.nearest(vectors[3], 5)
    assert hits[0].id == int(ids[3])
    assert len(hits) == 5
    with pytest.raises(zoo.ZooError, match="does not embed texts"):
        embed_texts(tmp_path / "run", ["seven"])
