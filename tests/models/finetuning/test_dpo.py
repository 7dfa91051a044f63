"""Preferences and rewards: losses equal formulas over every token; the policy learns, the reference stays frozen."""

import math
from typing import Any

import pytest
import pytorch_lightning as L
import torch

import zoo
from zoo.core.errors import ConfigError
from zoo.core.spaces import Preference, Tokens
from zoo.data.batch import Batch
from zoo.data.loader import ShuffledSampler, TensorLoader
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.char import Char
from zoo.models.finetuning.grpo import Rollout
from zoo.nn.blocks.lora import adapters
from zoo.nn.samplers.rollout import collate_examples

TOKENIZER = Char().fit(["abcdefgh"])
END = TOKENIZER.end
NETWORK = {"name": "transformer", "d_model": 16, "n_layers": 1, "n_heads": 2, "dropout": 0.5}
SMALL = {"name": "language_model", "backbone": NETWORK}


TEXT = Tokens(8, TOKENIZER.vocab_size, dumps(TOKENIZER))


def stage(name: str, **settings: Any) -> Any:
    """Build a small model with random weights, because residual branches start at zero. They are also its reference."""
    torch.manual_seed(0)
    space = Preference(TEXT) if name in ("dpo", "kto", "reward_model") else TEXT
    model: Any = zoo.create_model(name, data=zoo.DataSpec(space, name="letters"), **{"policy": SMALL, **settings})
    for weight in model.pretrained_state().values():
        if weight.is_floating_point():
            torch.nn.init.normal_(weight, std=0.3)
    model.load_pretrained(model.pretrained_state())
    return model


def texts(prompts: str, answers: str) -> Batch:
    """Return a batch of rows, each a prompt and its answer; both arguments are lists of words."""
    begins = [[END, *TOKENIZER.encode(p)] for p in prompts.split()]
    return Batch(*collate_examples(begins, [[*TOKENIZER.encode(a), END] for a in answers.split()], END))


def pairs() -> Batch:
    x, y = texts("ab ab c c", "cde c abcd hg")
    return Batch(x.unflatten(0, (2, 2)), y.unflatten(0, (2, 2)))


def log_prob(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the log-probability of every scored token of a row, by hand."""
    logits = model.net(x[None])[0].double()
    return torch.stack([logits[t].log_softmax(0)[y[t]] for t in range(len(y)) if y[t] >= 0])


# -- preferences ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [0, 3])
def test_at_first_the_loss_is_ln_2_dropout_or_not(rank: int) -> None:
    model = stage("dpo", lora_rank=rank).train()
    assert not model.policy.training
    terms = model.loss(pairs())
    assert terms["loss"].item() == pytest.approx(math.log(2), abs=1e-6)
    assert abs(terms["reward_margin"].item()) < 1e-6  # attention rounds differently with gradients enabled


@pytest.mark.parametrize(("rank", "imitate"), [(0, 0.0), (3, 0.7)])
def test_the_loss_is_the_formula_over_every_token(rank: int, imitate: float) -> None:
    model, (x, y) = stage("dpo", lora_rank=rank, sft_weight=imitate, beta=0.3), pairs()
    with torch.no_grad():
        before = [[log_prob(model, x[b, k], y[b, k]).sum() for k in (0, 1)] for b in (0, 1)]
        for p in model.policy.parameters():
            if p.requires_grad:
                p.add_(0.2 * torch.randn_like(p))
        now = [[log_prob(model, x[b, k], y[b, k]) for k in (0, 1)] for b in (0, 1)]
    wanted = 0.0
    for b in (0, 1):
        margin = (now[b][0].sum() - before[b][0]) - (now[b][1].sum() - before[b][1])
        wanted += (math.log(1 + math.exp(-0.3 * margin)) - imitate * now[b][0].mean().item()) / 2
    assert model.loss(Batch(x, y))["loss"].item() == pytest.approx(wanted, rel=1e-5)
    assert abs(wanted - math.log(2)) > 0.01


@pytest.mark.parametrize("rank", [0, 3])
def test_the_chosen_answers_win_and_the_reference_stays(rank: int) -> None:
    model, batch = stage("dpo", lora_rank=rank), pairs()
    frozen = {k: v.clone() for k, v in model.state_dict().items() if k.startswith("reference.")}
    weights = {k: v.clone() for k, v in model.pretrained_state().items()}
    before = model.reference_nll(Batch(batch.x.flatten(0, 1), batch.y.flatten(0, 1)))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(batch)["loss"].backward()
        optimizer.step()
    terms = model.loss(batch)
    assert terms["reward_accuracy"].item() == 1
    assert terms["loss"].item() < 0.6
    assert torch.equal(model.reference_nll(Batch(batch.x.flatten(0, 1), batch.y.flatten(0, 1))), before)
    if rank:
        assert not frozen, "with adapters there is no second copy"
        assert all(torch.equal(v, weights[k]) for k, v in model.pretrained_state().items())
        assert adapters(model.net)
    else:
        assert all(torch.equal(v, frozen[k]) for k, v in model.state_dict().items() if k in frozen)


def test_losses_without_a_reference_have_no_copy_of_the_policy() -> None:
    """SimPO over every token by hand: mean log-probabilities, and a margin."""
    model, (x, y) = stage("dpo", loss="simpo", beta=2.0, margin=0.5), pairs()
    assert model.reference is None
    assert not any(name.startswith("reference.") for name in model.state_dict())
    assert stage("dpo", loss="ipo").reference is not None
    wanted = 0.0
    for b in (0, 1):
        one, other = (log_prob(model, x[b, k], y[b, k]).mean().item() for k in (0, 1))
        wanted += math.log(1 + math.exp(-(2.0 * (one - other) - 0.5))) / 2
    assert model.loss(Batch(x, y))["loss"].item() == pytest.approx(wanted, rel=1e-5)
    summed = stage("dpo", loss="simpo", beta=2.0, margin=0.0).loss(Batch(x, y))["loss"].item()
    assert summed != pytest.approx(wanted, rel=1e-3), "the control: another margin"


@pytest.mark.parametrize("settings", [{"loss": "ipo"}, {"loss": "hinge"}, {"loss": "simpo", "beta": 2.0},
    {"loss": "orpo", "sft_weight": 1.0}, {"label_smoothing": 0.1}], ids=lambda s: next(iter(s.values())))  # fmt: skip
def test_every_loss_makes_the_chosen_answers_win(settings: dict) -> None:
    model, batch = stage("dpo", **settings), pairs()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    first = model.loss(batch)["loss"].item()
    for _ in range(40):
        optimizer.zero_grad()
        model.loss(batch)["loss"].backward()
        optimizer.step()
    terms = model.loss(batch)
    assert terms["reward_accuracy"].item() == 1
    assert terms["loss"].item() < first


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"loss": "orpo"}, "model.loss=orpo: .* Set model.sft_weight=1"),
        ({"loss": "ipo", "label_smoothing": 0.1}, "model.label_smoothing=0.1: .* Choose model.loss=sigmoid"),
        ({"margin": 1.0}, "model.margin=1.0: .* Choose model.loss=simpo"),
    ],
)
def test_settings_of_another_loss_are_refused(settings: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        stage("dpo", **settings)


# -- rewards -------------------------------------------------------------------------------------------------


def fitted(model: Any, batch: tuple[torch.Tensor, torch.Tensor], batches: int) -> L.Trainer:
    n = len(batch)
    loader = TensorLoader(lambda i, g: (batch.x[i], batch.y[i]), ShuffledSampler(n, 0), n, drop_last=True)
    trainer = L.Trainer(
        max_steps=model.optimizer_steps(batches), max_epochs=-1, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(model, loader)
    return trainer


@pytest.mark.parametrize("updates", [1, 3])
def test_a_bandit_is_solved(updates: int) -> None:
    """For each of four prompts one letter of eight is right. The model finds it from the rewards alone."""
    model, batch = (
        stage(
            "grpo", num_generations=16, max_new_tokens=1, num_iterations=updates, optimizer={"lr": 0.02, "warmup": 0}
        ),
        texts("a b c d", "h g f e"),
    )
    x, y = batch

    def right() -> torch.Tensor:
        with torch.no_grad():
            return model.net(x)[:, 1].softmax(-1)[torch.arange(4), y[:, 1]]

    assert right().max() < 0.5
    torch.manual_seed(1)
    trainer = fitted(model, batch, 60 // updates)
    assert right().min() > 0.9, right()
    assert trainer.global_step == 60, "updates are optimizer steps"
    assert model.optimizer_steps_to_batches(60) == 60 // updates


def test_equal_rewards_teach_nothing() -> None:
    """All gradients are exactly zero. With unequal rewards they are not."""
    for pattern, taught in (("(?s).*", False), ("a.*", True)):
        model, batch = stage("grpo", reward={"name": "format", "pattern": pattern}), texts("a b c d", "h g f e")
        terms = model.loss(batch)
        terms["loss"].backward()
        assert any(p.grad.any() for p in model.policy.parameters()) is taught
        assert (terms["informative"].item() > 0) is taught


@pytest.mark.parametrize(("beta", "rank"), [(0.0, 0), (0.5, 0), (0.5, 3)])
def test_the_surrogate_is_the_formula_over_every_token(beta: float, rank: int) -> None:
    """The formula is trl's (loss_type="grpo"): the mean over answers of the mean over tokens of -min(...) + beta KL."""
    model = stage("grpo", beta=beta, lora_rank=rank, num_generations=4, reward="similar", clip_range=0.1)
    batch = texts("ab c", "cd hg")
    made = model.rollout(batch)
    assert made.rewards.shape == (2, 4)
    n = len(made.x)
    with torch.no_grad():
        old = -model.token_nll(Batch(made.x, made.y))[0]
        before = [log_prob(model, made.x[i], made.y[i]) for i in range(n)]
        for p in model.policy.parameters():
            if p.requires_grad:
                p.add_(0.05 * torch.randn_like(p))
        now = [log_prob(model, made.x[i], made.y[i]) for i in range(n)]
    wanted, clipped = 0.0, 0
    for i in range(n):
        a, group = made.advantages[i].item(), made.rewards[i // 4].double()
        assert a == pytest.approx(((group[i % 4] - group.mean()) / (group.std() + 1e-4)).item(), abs=1e-5)
        tokens = []
        for new, was in zip(now[i].tolist(), before[i].tolist(), strict=True):
            ratio, back = math.exp(new - was), was - new
            clipped += abs(ratio - 1) > 0.1
            gain = min(ratio * a, min(max(ratio, 0.9), 1.1) * a)
            tokens.append(-gain + beta * (math.exp(back) - back - 1))
        wanted += sum(tokens) / len(tokens) / n
    assert clipped
    assert model.surrogate(made, old)[0]["loss"].item() == pytest.approx(wanted, rel=1e-4, abs=1e-6)


def test_tokens_instead_of_answers_have_equal_weight() -> None:
    """The gradient is the sum over tokens, over the limit of an answer; answers of unequal length tell them apart."""
    even, long = (stage("grpo", equal_answers=equal, max_new_tokens=6, num_generations=2) for equal in (True, False))
    x, y = texts("a a", "bcde f")
    made = Rollout(x, y, torch.tensor([[1.0, 0.0]]), torch.tensor([1.0, -1.0]))
    lengths = (y >= 0).sum(1)
    assert lengths.tolist() == [5, 2]
    gradients = []
    for model in (even, long):
        (model.surrogate(made)[0]["loss"]).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    nats = [long.token_nll(Batch(x, y))[0][row].sum() for row in (0, 1)]
    by_hand = torch.autograd.grad((nats[0] - nats[1]) / 2 / 6, [p for p in long.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients[1], torch.cat([g.flatten() for g in by_hand]), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(gradients[0], gradients[1], rtol=1e-2)


def test_answers_are_what_the_policy_writes() -> None:
    """Equal seeds give equal answers. Each is scored from its prompt to its end, and its reward is correct."""
    model, batch = stage("grpo", num_generations=3, reward="similar"), texts("ab c", "cd hg")
    torch.manual_seed(5)
    one = model.rollout(batch)
    torch.manual_seed(5)
    two = model.rollout(batch)
    assert all(torch.equal(getattr(one, k), getattr(two, k)) for k in ("x", "y", "rewards", "advantages"))
    for i in range(6):
        prompt, answer = (("ab", "cd"), ("c", "hg"))[i // 3]
        scored = (one.y[i] >= 0).nonzero().flatten()
        assert one.x[i, : scored[0] + 1].tolist() == [END, *TOKENIZER.encode(prompt)]
        assert torch.equal(one.x[i, scored[1:]], one.y[i, scored[:-1]])
        text = TOKENIZER.decode(one.y[i, scored].tolist())
        assert one.rewards[i // 3, i % 3].item() == pytest.approx(model.reward(prompt, text, answer))


def test_parts_of_a_step_change_nothing() -> None:
    """`accumulate` changes the number of rows scored at once, but not the result."""
    weights = []
    for parts in (1, 3):
        model = stage(
            "grpo",
            num_generations=4,
            reward="similar",
            accumulate=parts,
            num_iterations=2,
            beta=0.1,
            optimizer={"lr": 1e-2},
        )
        torch.manual_seed(3)
        fitted(model, texts("ab c", "cd hg"), 2)
        weights.append(torch.cat([p.detach().flatten() for p in model.policy.parameters()]))
    torch.testing.assert_close(weights[0], weights[1], atol=1e-5, rtol=1e-4)


def test_a_prompt_that_fills_the_context_is_said_so() -> None:
    model = stage("grpo")
    full = Batch(torch.tensor([[END] + [0] * 8]), torch.tensor([[-100] * 8 + [1]]))
    with pytest.raises(zoo.ZooError, match=r"data.context=8: a prompt fills the context"):
        model.loss(full)
