"""Supervised fine-tuning: only answers are learned, every token counts the same, and adapters learn alone."""

import math

import pytest
import pytorch_lightning as L
import torch

import zoo
from zoo.core import registry
from zoo.core.spaces import Preference, Tokens
from zoo.data.batch import Batch
from zoo.data.loader import ShuffledSampler, TensorLoader
from zoo.models.finetuning.base import exact_match
from zoo.nn.blocks.lora import adapters
from zoo.nn.samplers.rollout import PromptExample, collate_examples

END = 11
SPEC = zoo.DataSpec(Tokens(12, END + 1), name="letters")
NETWORK = {"name": "transformer", "d_model": 16, "n_layers": 1, "n_heads": 2}
SMALL = {"name": "language_model", "backbone": NETWORK}


def stage(name: str = "sft", **settings: object) -> zoo.Model:
    """A small one whose branches, which begin at zero, do something."""
    torch.manual_seed(0)
    model = zoo.create_model(name, data=SPEC, policy=SMALL, **settings)
    frozen = [p for p in model.net.parameters() if not p.requires_grad]
    for p in frozen or model.net.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model


def examples(n: int = 8) -> Batch:
    """Prompts and answers of unequal lengths."""
    torch.manual_seed(1)
    lengths = torch.randint(1, 5, (n, 2)).tolist()
    prompts = [[END, *torch.randint(END, (a,)).tolist()] for a, _ in lengths]
    return Batch(*collate_examples(prompts, [[*torch.randint(END, (b,)).tolist(), END] for _, b in lengths], END))


def test_a_prompt_is_not_learned() -> None:
    """The gradient of the loss with respect to the logits is exactly zero there, and nowhere else."""
    model, (x, y) = stage(), examples()
    logits = []

    def keep(_: object, __: object, out: torch.Tensor) -> None:
        out.retain_grad()
        logits.append(out)

    model.net.register_forward_hook(keep)
    model.loss(Batch(x, y))["loss"].backward()
    size = logits[0].grad.abs().amax(-1)  # (B, T)
    assert not size[y < 0].any()
    assert (size[y >= 0] > 0).all()


def test_the_loss_is_the_mean_over_scored_tokens() -> None:
    model, (x, y) = stage(), examples()
    log_probs = model.net(x).log_softmax(-1)
    costs = [-log_probs[b, t, y[b, t]] for b in range(len(x)) for t in range(x.shape[1]) if y[b, t] >= 0]
    assert model.loss(Batch(x, y))["loss"].item() == pytest.approx(torch.stack(costs).mean().item(), rel=1e-5)


class Gradients(L.Callback):
    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        self.seen.append(torch.cat([p.grad.flatten().clone() for p in pl_module.parameters()]))


def gradients(batch: Batch, parts: int, steps: int = 2, name: str = "sft", **options) -> list:
    """Of the first two steps over a batch, in so many parts."""
    model, seen, n = stage(optimizer={"lr": 1e-3}), Gradients(), len(batch)
    loader = TensorLoader(lambda i, g: (batch.x[i], batch.y[i]), ShuffledSampler(n, 0), n // parts, drop_last=True)
    trainer = L.Trainer(
        max_steps=2, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accumulate_grad_batches=parts, callbacks=[seen],
        log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(model, loader)
    return seen.seen


def test_parts_of_a_batch_give_its_gradient() -> None:
    """Each token counts the same, however many a part has; the mean of the parts' means would be something else."""
    x, y = examples(8)
    counts = (y >= 0).sum(1)
    assert counts.min() < counts.max()
    whole, parts = gradients(Batch(x, y), 1), gradients(Batch(x, y), 4)
    assert len(whole) == len(parts) == 2
    for one, two in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-4)
    model = stage()
    order = ShuffledSampler(8, 0).epoch(0).split(2)
    means = [torch.autograd.grad(model.loss(Batch(x[i], y[i]))["loss"], list(model.parameters())) for i in order]
    naive = torch.stack([torch.cat([g.flatten() for g in grads]) for grads in means]).mean(0)
    assert (naive - whole[0]).abs().max() > 1e-3, "the test could not tell"


def test_adapters_learn_alone_and_merge() -> None:
    model, batch = stage(lora_rank=2), examples()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    for _ in range(5):
        optimizer.zero_grad()
        model.loss(batch)["loss"].backward()
        optimizer.step()
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {f"policy.net.{name}" for name in adapters(model.net)} != set()
    nats = model.token_nll(batch)[0].detach()
    policy = model.merged()
    assert type(policy).__name__ == "LanguageModel"
    assert policy.state_dict().keys() == zoo.create_model("gpt", data=SPEC, backbone=NETWORK).state_dict().keys()
    assert all(p.requires_grad for p in policy.parameters())
    torch.testing.assert_close(policy.token_nll(batch)[0], nats, atol=1e-5, rtol=1e-5)


def test_right_answers_are_counted_token_for_token() -> None:
    asked = [PromptExample([END, 1], [2, END]), PromptExample([END, 1], [2, END]), PromptExample([END, 1], [2, 3])]
    assert exact_match(asked, [[2, END], [2, 3], [2, 3]]).item() == pytest.approx(2 / 3)
    assert exact_match(asked, [[2], [], [2, 3, 4]]).item() == pytest.approx(1 / 3), "an answer that is cut goes on"


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"name": "sft"}, "it is a fine-tuning stage"),
        ({"name": "ngram"}, "does not have trainable weights"),
        ({"name": "vae"}, "learns image, vector, series or video data"),
        ({"name": "langage_model"}, "did you mean 'language_model'"),
        ({"name": "language_model", "backbone": {"name": "transformer", "d_modle": 3}}, "did you mean 'd_model'"),
        ({"name": "bert"}, "cannot continue text"),
    ],
)
def test_what_cannot_be_tuned_is_refused(policy: dict[str, object], said: str) -> None:
    with pytest.raises(zoo.ZooError, match=said):
        registry.build("model", {"name": "sft", "policy": policy}, SPEC)


@pytest.mark.parametrize("name", ["dpo", "grpo", "sft"])
def test_a_recurrent_policy_is_tuned_too(name: str) -> None:
    """It has no context to fill: what it writes ends where a row of the data would."""
    torch.manual_seed(0)
    text = Tokens(12, END + 1)
    spec = zoo.DataSpec(Preference(text) if name == "dpo" else text, name="letters")
    network = {"name": "lstm", "d_model": 8, "n_layers": 1, "dropout": 0.5}
    small = {"name": "language_model", "backbone": network}
    model = registry.build("model", {"name": name, "policy": small}, spec)
    x, y = examples()
    batch = Batch(torch.stack([x, x.flip(0)], 1), torch.stack([y, y.flip(0)], 1)) if name == "dpo" else Batch(x, y)
    terms = model.loss(batch)
    terms["loss"].backward()
    assert torch.isfinite(terms["loss"])
    if name == "dpo":
        assert terms["loss"].item() == pytest.approx(math.log(2), abs=1e-6), "no dropout"
