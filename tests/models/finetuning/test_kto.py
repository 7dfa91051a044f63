"""KTO: the loss equals the formula over every token; labels move the answers, without pairs."""

from typing import Any

import pytest
import torch

from tests.models.finetuning.test_dpo import log_prob, pairs, stage, texts
from zoo.core.spaces import ABSENT
from zoo.data.batch import Batch


def sigmoid(x: float) -> float:
    return 1 / (1 + 2.718281828459045**-x)


def labelled() -> Batch:
    """Four answers to four prompts: two good ones and two bad ones, without pairs."""
    x, y = pairs()
    x, y = x.repeat(2, 1, 1), y.repeat(2, 1, 1)
    y[:2, 1] = y[2:, 0] = ABSENT
    return Batch(x, y)


@pytest.mark.parametrize(("rank", "batch"), [(0, pairs()), (0, labelled()), (3, labelled())])
def test_the_loss_is_the_formula_over_every_token(rank: int, batch: Batch) -> None:
    """Answers, and prompts with the answer of the next one for the reference point, one row at a time."""
    model = stage("kto", lora_rank=rank, beta=0.5, desirable_weight=1.5)
    rows = [
        (batch.x[b, k], batch.y[b, k], k == 0)
        for k in (0, 1) for b in range(len(batch.x)) if (batch.y[b, k] >= 0).any()
    ]  # fmt: skip
    mixed = []
    for number, (x, y, _) in enumerate(rows):
        other = rows[(number + 1) % len(rows)][1]
        start, answer = int((y >= 0).nonzero()[0]), other[other >= 0]
        read = torch.cat([x[: start + 1], answer[:-1]])[: batch.x.shape[2]]
        mixed.append((read, torch.cat([torch.full((start,), ABSENT), answer])[: batch.x.shape[2]]))
    with torch.no_grad():
        before = [[log_prob(model, x, y).sum() for x, y, *_ in some] for some in (rows, mixed)]
        for p in model.policy.parameters():
            if p.requires_grad:
                p.add_(0.2 * torch.randn_like(p))
        ratio, unrelated = (
            [float(log_prob(model, x, y).sum() - was) for (x, y, *_), was in zip(some, old, strict=True)]
            for some, old in zip((rows, mixed), before, strict=True)
        )
    kl = max(sum(unrelated) / len(unrelated), 0.0)
    wanted = sum(
        1.5 * (1 - sigmoid(0.5 * (r - kl))) if good else 1 - sigmoid(0.5 * (kl - r))
        for r, (_, _, good) in zip(ratio, rows, strict=True)
    ) / len(rows)
    terms = model.loss(batch)
    assert terms["loss"].item() == pytest.approx(wanted, rel=1e-4)
    assert terms["kl"].item() == pytest.approx(kl, rel=1e-4, abs=1e-6)
    good = [r for r, (_, _, label) in zip(ratio, rows, strict=True) if label]
    assert terms["reward_desirable"].item() == pytest.approx(0.5 * sum(good) / len(good), rel=1e-4)


def test_the_answers_of_the_reference_point_are_unrelated() -> None:
    """A prompt never takes an answer to itself: a pair would compare its good answer with its bad one."""
    x, y = texts("ab ab c c d d", "cde c abcd hg e f")
    batch = Batch(x.unflatten(0, (3, 2)), y.unflatten(0, (3, 2)))
    own: dict[tuple[int, ...], list[list[int]]] = {}
    for read, scored in zip(x, y, strict=True):
        prompt = tuple(read[: int((scored >= 0).nonzero()[0]) + 1].tolist())
        own.setdefault(prompt, []).append(scored[scored >= 0].tolist())
    asked: list[Batch] = []
    model = stage("kto")
    model.log_ratio = lambda batch: asked.append(batch) or torch.zeros(len(batch.x))
    model.loss(batch)
    for read, scored in zip(*asked[1], strict=True):
        prompt = tuple(read[: int((scored >= 0).nonzero()[0]) + 1].tolist())
        assert scored[scored >= 0].tolist() not in own[prompt]
    control = [
        scored[scored >= 0].tolist() in own[prompt] for (prompt, _), scored in zip(own.items(), y[::2], strict=True)
    ]
    assert all(control), "their own answers are recognised"


@pytest.mark.parametrize("rank", [0, 3])
def test_labels_move_the_answers(rank: int) -> None:
    model, batch = stage("kto", lora_rank=rank), labelled()
    assert model.loss(batch)["loss"].item() == pytest.approx(0.5, abs=1e-5), "at the start all rewards are zero"
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(batch)["loss"].backward()
        optimizer.step()
    terms = model.loss(batch)
    assert terms["reward_desirable"] > 0 > terms["reward_undesirable"]
    assert terms["loss"].item() < 0.45


def test_swapped_labels_move_them_the_other_way() -> None:
    model, (x, y) = stage("kto"), labelled()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(Batch(x.flip(1), y.flip(1)))["loss"].backward()
        optimizer.step()
    terms = model.loss(Batch(x, y))
    assert terms["reward_desirable"] < 0 < terms["reward_undesirable"]


def test_the_reference_point_has_no_gradient_and_rows_fit_the_context() -> None:
    model: Any = stage("kto")
    x, y = texts("abcdef a", "h bcdefg")  # with each other's answers, one row is too long
    point = model.reference_point(Batch(x, y))
    assert not point.requires_grad
    assert point.item() == 0


def test_the_first_gradient_is_a_quarter_of_that_of_dpo() -> None:
    """At the start all ratios are 0: both raise good answers as much as they lower bad ones, DPO four times as fast.

    So the rates and the risks of both compare: neither keeps the likelihood of the good answer.
    """
    found = {}
    for name, settings in (("kto", {}), ("dpo", {}), ("kto unequal", {"desirable_weight": 2.0})):
        model = stage(name.split()[0], beta=0.5, **settings)
        model.loss(pairs())["loss"].backward()
        found[name] = torch.cat([p.grad.flatten() for p in model.policy.parameters() if p.grad is not None])
    torch.testing.assert_close(4 * found["kto"], found["dpo"], rtol=1e-4, atol=1e-7)
    assert not torch.allclose(4 * found["kto unequal"], found["dpo"], rtol=1e-2, atol=1e-7), "the control"
