"""Distillation: divergences per token add up to those of whole texts; a student learns its teacher."""

import itertools
from typing import Any

import pytest
import torch

import zoo
from tests.models.finetuning.test_dpo import NETWORK
from zoo.core.spaces import Tokens
from zoo.data.batch import Batch

SPEC = zoo.DataSpec(Tokens(3, 3), name="letters")
PLAIN = {"name": "language_model", "backbone": {**NETWORK, "dropout": 0.0}}


def built(**settings: Any) -> Any:
    torch.manual_seed(0)
    model: Any = zoo.create_model("distillation", data=SPEC, teacher=PLAIN, policy=PLAIN, **settings)
    for part in (model.teacher, model.policy):
        for p in part.parameters():
            torch.nn.init.normal_(p, std=0.5)
    return model


def everything() -> Batch:
    """All texts of three tokens out of three, each after the token that begins a text."""
    y = torch.tensor(list(itertools.product(range(3), repeat=3)))
    return Batch(torch.nn.functional.pad(y[:, :-1], (1, 0), value=2), y)


@torch.no_grad()
@pytest.mark.parametrize(("kind", "writer"), [("forward_kl", "teacher"), ("reverse_kl", "policy")])
def test_divergences_per_token_add_up_to_those_of_texts(kind: str, writer: str) -> None:
    """The expected sum over tokens, of texts from the first distribution, is the KL divergence of all 27 texts."""
    model, batch = built(divergence=kind).eval(), everything()
    log_p = {name: -getattr(model, name).token_nll(batch)[0].double().sum(1) for name in ("teacher", "policy")}
    assert log_p["teacher"].exp().sum().item() == pytest.approx(1, abs=1e-5)
    other = "policy" if writer == "teacher" else "teacher"
    wanted = (log_p[writer].exp() * (log_p[writer] - log_p[other])).sum()
    sums = model.divergence(batch).double().sum(1)
    assert (log_p[writer].exp() * sums).sum().item() == pytest.approx(wanted.item(), rel=1e-4)
    assert wanted > 0.05
    control = (log_p[other].exp() * sums).sum().item()
    assert control != pytest.approx(wanted.item(), rel=0.01), "the control: texts of the other one"


def test_the_loss_is_the_mean_over_scored_tokens_and_the_data() -> None:
    model, (x, y) = built(nll_weight=0.3, temperature=2.0), everything()
    y = y.masked_fill(torch.arange(3) == 1, -100)
    terms = model.loss(Batch(x, y))
    apart, nats, n = 0.0, 0.0, 0
    for row, targets in zip(x, y, strict=True):
        s, t = (part.net(row[None])[0].double() for part in (model.policy, model.teacher))
        for place in range(3):
            if targets[place] >= 0:
                p, q = (some[place].div(2).log_softmax(0) for some in (t, s))
                apart, n = apart + 4 * float((p.exp() * (p - q)).sum()), n + 1
                nats -= float(s[place].log_softmax(0)[targets[place]])
    assert terms["loss"].item() == pytest.approx(apart / n + 0.3 * nats / n, rel=1e-4)


@pytest.mark.parametrize("settings", [{}, {"divergence": "reverse_kl", "on_policy": 1.0}, {"divergence": "jsd"}])
def test_a_student_learns_its_teacher(settings: dict[str, Any]) -> None:
    """From texts that do not come from the teacher, or from those that it writes itself."""
    model, batch = built(**settings).train(), everything()
    frozen = {k: v.clone() for k, v in model.teacher.state_dict().items()}
    with torch.no_grad():
        before = model.eval().divergence(batch).mean().item()
    model.train()
    assert not model.teacher.training
    optimizer = torch.optim.Adam(model.policy.parameters(), 1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        model.loss(batch)["loss"].backward()
        optimizer.step()
    with torch.no_grad():
        assert model.eval().divergence(batch).mean().item() < 0.2 * before
    assert all(torch.equal(v, frozen[k]) for k, v in model.teacher.state_dict().items())


def test_a_teacher_without_all_probabilities_is_refused() -> None:
    with pytest.raises(zoo.ZooError, match=r"model.teacher=ngram: does not give the probabilities of all tokens"):
        zoo.create_model("distillation", data=SPEC, teacher="ngram", policy=PLAIN)
