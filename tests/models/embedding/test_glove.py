"""GloVe against co-occurrences that loops count, and a closed form."""

from collections import Counter

import pytest
import pytorch_lightning as L
import torch

import zoo
from zoo.core.spaces import Tokens
from zoo.data.batch import Batch
from zoo.data.loader import make_generator
from zoo.models.embedding.glove import GloVe

V, T = 6, 20
X = torch.randint(V, (5, T), generator=make_generator(2))


class Data(zoo.DataModule):
    spec = zoo.DataSpec(Tokens(T, V))

    def load(self) -> None:
        self.train = self.val = self.test = X, X


def counted(window: int) -> dict[tuple[int, int], float]:
    """Co-occurrences 1 / d by loops."""
    found: Counter[tuple[int, int]] = Counter()
    for row in X.tolist():
        for i, center in enumerate(row):
            for j in range(max(i - window, 0), min(i + window + 1, T)):
                if i != j:
                    found[center, row[j]] += 1 / abs(i - j)
    return dict(found)


def fitted(**given) -> GloVe:
    torch.manual_seed(0)
    model = GloVe(Data.spec, **{"dim": 4, "window": 3, "x_max": 8.0} | given)
    trainer = L.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(model, datamodule=Data(2, 0))
    return model.double()


def test_cooccurrences_and_objective_are_those_of_loops() -> None:
    model, wanted = fitted(), counted(3)
    found = {divmod(k, V): x for k, x in zip(model.pairs.tolist(), model.cooccurrences.tolist(), strict=True)}
    assert found.keys() == wanted.keys()
    assert [found[pair] for pair in wanted] == pytest.approx(list(wanted.values()), rel=1e-6)
    assert counted(2) != pytest.approx(wanted)
    terms = []
    for (i, j), x in wanted.items():
        score = model.center[i] @ model.context[j] + model.center_bias[i] + model.context_bias[j]
        terms.append(min(1, x / 8) ** 0.75 * (score - torch.tensor(x).log()) ** 2)
    published = float(torch.stack(terms).detach().sum())  # equation 8
    assert max(wanted.values()) > 8 > min(wanted.values())
    total = sum(wanted.values())
    assert float(model.loss(Batch(X, X))["loss"].detach()) == pytest.approx(published / total, rel=1e-5)
    half = [float(model.loss(Batch(rows, rows))["loss"].detach()) * shares(rows) for rows in (X[:2], X[2:])]
    assert sum(half) == pytest.approx(published, rel=1e-5), "batches add up to the objective"
    assert half[0] != pytest.approx(published / 2, rel=1e-2)


def shares(rows: torch.Tensor) -> float:
    """Co-occurrences in some rows."""
    return len(rows) * sum(2 * (T - d) / d for d in range(1, 4))


def test_enough_dimensions_give_the_logarithms() -> None:
    """A table of counts of rank one needs the biases alone; any table needs as many dimensions as words."""
    grid = torch.cartesian_prod(torch.arange(V), torch.arange(V))
    rank_one = (torch.arange(1.0, V + 1)[:, None] * torch.arange(2.0, V + 2)[None]).flatten()
    other = torch.rand(V * V, generator=make_generator(3)) * 9 + 1
    for counts, dim, reached in ((rank_one, 1, True), (other, 1, False), (other, V, True)):
        model = fitted(dim=dim)
        model.pairs, model.cooccurrences = grid[:, 0] * V + grid[:, 1], counts.double()
        batch = Batch(*[grid] * 2)  # windows of two words hold every pair
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2000, max_eval=4000, line_search_fn="strong_wolfe")

        def closure(model=model, batch=batch, optimizer=optimizer):
            optimizer.zero_grad()
            loss = model.loss(batch)["loss"]
            loss.backward()
            return loss

        optimizer.step(closure)
        scores = (model.center @ model.context.T + model.center_bias + model.context_bias.T).detach()
        assert torch.allclose(scores.flatten(), counts.double().log(), atol=1e-2) == reached
