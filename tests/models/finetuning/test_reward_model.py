"""Reward models: the log-odds of preferences are recovered, and rewards of answers are learned from."""

import itertools
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.models.finetuning.test_dpo import END, SMALL, TOKENIZER, fitted, stage, texts
from zoo.core.errors import ConfigError
from zoo.data.batch import Batch
from zoo.nn.samplers.rollout import collate_examples

SCORES = {"a": 0.0, "b": 0.8, "c": -1.2, "d": 2.0}  # of four answers


def preferences(flip: bool = False) -> Batch:
    """Pairs of answers, each order as often as the Bradley-Terry model has it, to 1 in 40."""
    chosen, rejected = list[str](), list[str]()
    for one, two in itertools.combinations(SCORES, 2):
        wins = round(40 / (1 + math.exp(SCORES[two] - SCORES[one])))
        chosen += [one] * wins + [two] * (40 - wins)
        rejected += [two] * wins + [one] * (40 - wins)
    if flip:
        chosen, rejected = rejected, chosen
    (x, y), (z, w) = (texts("e " * len(some), " ".join(some)) for some in (chosen, rejected))
    return Batch(torch.stack([x, z], 1), torch.stack([y, w], 1))


def learned(model: Any, batch: Batch, steps: int = 150) -> dict[str, float]:
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 5e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(batch)["loss"].backward()
        optimizer.step()
    with torch.no_grad():
        rewards = model.eval().rewards(texts("e e e e", "a b c d"))
    return dict(zip("abcd", rewards.tolist(), strict=True))


@pytest.mark.parametrize("rank", [0, 3])
def test_the_log_odds_of_known_preferences_are_recovered(rank: int) -> None:
    """At the optimum, differences of rewards are the log-odds of the pairs. Swapped pairs give the opposite order."""
    model = stage("reward_model", lora_rank=rank, policy=without_dropout())
    assert model.loss(preferences())["loss"].item() == pytest.approx(math.log(2), abs=1e-6)
    found = learned(model, preferences())
    for one, two in itertools.combinations(SCORES, 2):
        assert found[one] - found[two] == pytest.approx(SCORES[one] - SCORES[two], abs=0.25), (one, two)
    assert sorted(found, key=found.__getitem__) == sorted(SCORES, key=SCORES.__getitem__)
    if not rank:
        other = learned(stage("reward_model", policy=without_dropout()), preferences(flip=True))
        assert sorted(other, key=other.__getitem__) == sorted(SCORES, key=SCORES.__getitem__)[::-1], "the control"


def without_dropout() -> dict[str, Any]:
    return SMALL | {"backbone": {**SMALL["backbone"], "dropout": 0.0}}  # type: ignore[dict-item]


def test_the_reward_is_read_after_the_last_token_of_the_answer() -> None:
    model: Any = stage("reward_model", centre_weight=0.3).eval()
    torch.nn.init.normal_(model.head.weight)
    x, y = texts("ab c de", "cde f gh")
    with torch.no_grad():
        rewards = model.rewards(Batch(x, y))
        for row in range(3):
            text = x[row, : int((y[row] >= 0).nonzero()[-1]) + 1]
            alone = model.head(model.net.hidden_states(text[None])[0, -1])
            assert rewards[row].item() == pytest.approx(alone.item(), rel=1e-4, abs=1e-5)
        terms = model.loss(Batch(x[:2][None], y[:2][None]))
    one, two = rewards[:2].tolist()
    wanted = math.log(1 + math.exp(two - one)) + 0.3 * (one + two) ** 2
    assert terms["loss"].item() == pytest.approx(wanted, rel=1e-4)
    assert not {"generate", "likelihood", "sample"} & model.abilities.keys()


def test_a_policy_learns_what_a_reward_model_prefers() -> None:
    judge: Any = stage("reward_model", policy=without_dropout())
    learned(judge, preferences(), 60)
    model: Any = stage(
        "grpo", num_generations=16, max_new_tokens=1, optimizer={"lr": 0.02, "warmup": 0},
        reward_model={"name": "reward_model", **judge.hparams},
    )  # fmt: skip
    model.reward_model.load_state_dict(judge.state_dict())
    frozen = {k: v.clone() for k, v in judge.state_dict().items()}
    batch = texts("e e e e", "a a a a")
    torch.manual_seed(1)
    fitted(model, batch, 40)
    with torch.no_grad():
        p = model.net(batch.x)[0, 1].softmax(-1)
    answers = [[token] if token == END else [token, END] for token in range(TOKENIZER.vocab_size)]
    rows = collate_examples([[END, *TOKENIZER.encode("e")]] * len(answers), answers, END)
    best = int(judge.rewards(Batch(*rows)).argmax())
    assert p[best] > 0.8
    assert all(torch.equal(v, frozen[k]) for k, v in model.reward_model.state_dict().items())


def test_other_models_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.reward_model=language_model: not a reward model"):
        stage("grpo", reward_model=SMALL)


def test_the_suite_counts_pairs_in_the_right_order() -> None:
    """Known rewards: of 40 pairs of b and d, 3 in 4 prefer d; a model of equal rewards has one half and ln 2."""
    from zoo.evaluation.suites.preferences import PreferenceSuite

    model = stage("reward_model", policy=without_dropout())
    batch = preferences()
    context: Any = SimpleNamespace(model=model, batches=lambda size: iter([batch]), name=lambda name: name)
    with torch.no_grad():
        equal = PreferenceSuite().measure(context)
    assert equal["preferred"].value == pytest.approx(0.5)
    assert equal["preference_nll"].value == pytest.approx(math.log(2))
    learned(model, batch)
    with torch.no_grad():
        found = PreferenceSuite().measure(context)
    wins = [1 / (1 + math.exp(-abs(SCORES[a] - SCORES[b]))) for a, b in itertools.combinations(SCORES, 2)]
    assert found["preferred"].value == pytest.approx(sum(wins) / len(wins), abs=0.02), "the best that is possible"
    entropy = sum(-w * math.log(w) - (1 - w) * math.log(1 - w) for w in wins) / len(wins)
    assert found["preference_nll"].value == pytest.approx(entropy, abs=0.02)
