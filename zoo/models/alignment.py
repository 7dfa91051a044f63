"""What comes after supervised fine-tuning: learning from preferences, and from rewards for what a policy writes."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, cast

import torch
from annotated_types import Ge
from torch import Tensor, nn

from zoo.models.base import Batch, Schedule
from zoo.models.rewards import reward as named_reward
from zoo.models.tuning import Policy, Tuned, matches
from zoo.nn.alignment import advantages, clipped, divergence, mean_of_means, preference_loss
from zoo.nn.decoding import Sampling
from zoo.nn.lora import without_adapters
from zoo.nn.prompted import questions, rows
from zoo.registry import Part, register
from zoo.spec import Count, DataSpec, NonNegative, Positive, PositiveInt


class Aligned(Tuned):
    """A stage that compares the policy with what it was: it trains without dropout, as ratios of noise say nothing.

    Where the setting `beta` is not zero, the policy as it was at the start is needed. With adapters it is the policy
    without them; else a frozen copy, which checkpoints hold too.

    Args:
        spec: what the data looks like.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.reference: Any = None
        if self.hparams["beta"] and not self.hparams["rank"]:
            self.reference = copy.deepcopy(self.policy).requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> "Aligned":
        """Everything but the policy and its reference."""
        super().train(mode)
        self.policy.eval()
        for module in self.policy.modules():
            if isinstance(module, nn.RNNBase):
                module.train(mode)  # or cuDNN refuses to go backward; dropout of its own it has none
        if self.reference is not None:
            self.reference.eval()
        return self

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """The policy's weights are the reference's too."""
        super().start_from(weights)
        if self.reference is not None:
            self.reference.load_state_dict(dict(weights))

    @torch.no_grad()
    def reference_nats(self, batch: Batch) -> Tensor:
        """Cost of every target token (B, T) under the policy as it was."""
        if self.reference is not None:
            return cast(Tensor, self.reference.nats(batch)[0])
        with without_adapters(self.policy.net):
            return self.policy.nats(batch)[0]

    def compilable(self) -> list[torch.nn.Module]:
        """The networks of both."""
        return super().compilable() + ([] if self.reference is None else self.reference.compilable())


@register("model", "dpo")
class DPO(Aligned):
    """Direct preference optimisation: the better answer of two becomes likelier than it was, the worse one less likely.

    `loss` is -log sigmoid(reward of the chosen answer - that of the rejected one), where a reward is beta times how
    many nats likelier an answer is than it was before this stage; ln 2 at the start.

    Alone it is content where both answers become less likely, the rejected one the more so. `imitate` adds the cost of
    the chosen answer, as nats per token (Pang et al. 2024, 2404.19733, eq. 1), which keeps it likely.

    Args:
        spec: what the data looks like.
        policy: the model to tune; `init_from=RUN` brings it.
        beta: nats of reward per nat of log-probability: small values let the policy go far.
        imitate: weight of the chosen answer's nats per token; 0 is DPO as it was published.
        rank: of the adapters of linear layers, and nothing else is trained; 0 trains all weights.
        alpha: adapters are scaled by alpha / rank.
        lr: of AdamW.
        weight_decay: decoupled, of all matrices that are trained.
        schedule: of the learning rate.
        warmup: batches of linear warm-up.
        checked: held-out prompts that are answered at each validation; the chosen answer is the right one.
    """

    accepts = ("preferences",)
    paper = "Rafailov et al. 2023, 2305.18290"

    def __init__(
        self,
        spec: DataSpec,
        *,
        policy: Policy = "gpt",
        beta: Positive = 0.1,
        imitate: NonNegative = 0.0,
        rank: Count = 0,
        alpha: Positive = 16.0,
        lr: Positive = 1e-4,
        weight_decay: NonNegative = 0.0,
        schedule: Schedule = "linear",
        warmup: Count = 10,
        checked: Count = 256,
    ) -> None:
        super().__init__(spec)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The loss, how often the chosen answer has the greater reward, and rewards in nats."""
        x, y = batch[0].flatten(0, 1), batch[1].flatten(0, 1)  # (2 B, T)
        nats = self.nats((x, y))[0]
        policy = -nats.sum(1).view(-1, 2)
        reference = -self.reference_nats((x, y)).sum(1).view(-1, 2)
        loss, rewards = preference_loss(policy, reference, self.hparams["beta"])
        chosen, rejected = rewards.unbind(1)
        cost = mean_of_means(nats[::2], y[::2] >= 0)
        return {
            "loss": loss.mean() + self.hparams["imitate"] * cost,
            "preference_loss": loss.detach().mean(),
            "chosen_nats": cost.detach(),
            "reward_accuracy": (chosen > rejected).float().mean(),
            "reward_margin": (chosen - rejected).mean(),
            "reward_chosen": chosen.mean(),
            "reward_rejected": rejected.mean(),
        }

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The same on held-out pairs, and how many chosen answers are given."""
        self.log_means({f"val/{k}": v for k, v in self.loss(batch).items()}, len(batch[0]))
        self.log_accuracy(batch[0][:, 0], batch[1][:, 0], batch_idx)

    def dashboard(self) -> dict[str, list[str]]:
        """Loss, rewards and right answers."""
        rewards = ["train/reward_chosen", "train/reward_rejected"]
        return super().dashboard() | {"rewards": rewards, "chosen preferred": ["val/reward_accuracy"]}


@dataclass(frozen=True)
class Rollout:
    """What a policy wrote, and what it was worth.

    Args:
        x: prompts and answers (N, T), those to the same prompt one after another.
        y: what of them is scored (N, T).
        rewards: (B, G).
        advantages: (N,).
    """

    x: Tensor
    y: Tensor
    rewards: Tensor
    advantages: Tensor


@register("model", "grpo")
class GRPO(Aligned):
    """Group-relative policy optimisation: the policy writes several answers to a prompt, and those that a program finds
    better than their average become likelier.

    Prompts are what precedes the scored tokens of the data (where all are scored, a text begins from nothing). `loss`
    is the clipped surrogate, whose value is near zero whatever the policy has learned; so `val/loss` is the negative of
    the mean reward of greedy answers to held-out prompts, and best.ckpt is where that was lowest.

    Args:
        spec: what the data looks like.
        policy: the model to tune; `init_from=RUN` brings it.
        reward: what an answer is worth, a registered function of prompt, completion and answer.
        group: answers to each prompt.
        max_new_tokens: most tokens of an answer; None is all that the context has room for.
        epsilon: how far the ratio of probabilities, new to old, counts.
        beta: weight of the divergence from the policy as it was, in units of reward per nat; 0 keeps no reference.
        updates: optimizer steps with the answers to each batch of prompts.
        accumulate: in so many parts the answers of a step are scored, to save memory; it changes nothing else.
        clip: largest norm of the gradient; 0 is any.
        rank: of the adapters of linear layers, and nothing else is trained; 0 trains all weights.
        alpha: adapters are scaled by alpha / rank.
        lr: of AdamW.
        weight_decay: decoupled, of all matrices that are trained.
        schedule: of the learning rate.
        warmup: batches of linear warm-up.
        checked: held-out prompts that are answered at each validation.
    """

    paper = "Shao et al. 2024, 2402.03300"

    def __init__(
        self,
        spec: DataSpec,
        *,
        policy: Policy = "gpt",
        reward: Annotated[str | dict[str, Any], Part("reward")] = "exact",
        group: Annotated[int, Ge(2)] = 8,
        max_new_tokens: PositiveInt | None = None,
        epsilon: Positive = 0.2,
        beta: NonNegative = 0.0,
        updates: PositiveInt = 1,
        accumulate: PositiveInt = 1,
        clip: NonNegative = 1.0,
        rank: Count = 0,
        alpha: Positive = 16.0,
        lr: Positive = 1e-4,
        weight_decay: NonNegative = 0.0,
        schedule: Schedule = "constant",
        warmup: Count = 10,
        checked: PositiveInt = 256,
    ) -> None:
        super().__init__(spec)
        self.automatic_optimization = False  # several steps a batch
        self.reward = named_reward(reward, "model.reward")

    # -- what the policy writes ------------------------------------------------------------------------------

    def worth(self, prompt: list[int], completion: list[int], answer: list[int]) -> float:
        """The reward of one answer."""
        return float(self.reward(self.words(prompt), self.words(completion), self.words(answer)))

    def words(self, tokens: list[int]) -> str:
        """Tokens as text, without ends; numbers where the data has no tokenizer."""
        if self.tokenizer is not None:
            return str(self.tokenizer.decode(tokens))
        return " ".join(str(token) for token in tokens if token != self.end)

    @torch.no_grad()
    def roll_out(self, batch: Batch) -> Rollout:
        """Have the policy answer every prompt of a batch `group` times, at temperature 1.

        Random numbers come from torch's global generator, which a resumed run puts back.
        """
        group = self.hparams["group"]
        asked = [q for q in questions(*batch, self.begin, self.end) for _ in range(group)]
        done = self.written(asked, Sampling(), self.hparams["max_new_tokens"])
        rewards = torch.tensor([self.worth(q.prompt, new, q.answer) for q, new in zip(asked, done, strict=True)])
        rewards = rewards.view(-1, group)
        x, y = rows([q.prompt for q in asked], done, self.end)
        return Rollout(*(t.to(self.device) for t in (x, y, rewards, advantages(rewards).flatten())))

    def surrogate(self, made: Rollout, old: Tensor | None = None) -> tuple[dict[str, Tensor], Tensor]:
        """Terms of the loss, and the log-probabilities (N, T) of the tokens.

        Args:
            made: answers and their advantages.
            old: log-probabilities when they were written; None where the policy has not changed since.
        """
        batch, mask = (made.x, made.y), made.y >= 0
        new = -self.nats(batch)[0]
        old = new.detach() if old is None else old
        gain = clipped(new, old, made.advantages, self.hparams["epsilon"])
        terms = {"reward": made.rewards.mean(), "answer_tokens": mask.sum(1).float().mean()}
        terms["informative"] = (
            (made.rewards.amax(1) > made.rewards.amin(1)).float().mean()
        )  # groups that teach something
        if self.hparams["beta"]:
            apart = divergence(new, -self.reference_nats(batch))
            gain = gain - self.hparams["beta"] * apart
            terms["kl"] = mean_of_means(apart.detach(), mask)
        return {"loss": -mean_of_means(gain, mask), **terms}, new.detach()

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The surrogate for answers written now, and their mean reward."""
        return self.surrogate(self.roll_out(batch))[0]

    # -- training --------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Answers, and `updates` steps with them."""
        optimizer, made = cast(Any, self.optimizers()), self.roll_out(batch)
        parts = torch.arange(len(made.x)).tensor_split(min(self.hparams["accumulate"], len(made.x)))
        old: list[Tensor | None] = [None] * len(parts)
        for update in range(self.hparams["updates"]):
            for number, part in enumerate(parts):
                small = Rollout(made.x[part], made.y[part], made.rewards, made.advantages[part])
                terms, now = self.surrogate(small, old[number])
                self.manual_backward(terms["loss"] * (len(part) / len(made.x)))
                if not update:
                    old[number] = now
            optimizer.step()
            optimizer.zero_grad()
        cast(Any, self.lr_schedulers()).step()
        self.log_terms(terms)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip here, where a loss scaler has already been divided out."""
        if self.hparams["clip"]:
            self.clip_gradients(optimizer, self.hparams["clip"], "norm")

    def optimizer_steps(self, batches: int) -> int:
        """Several a batch."""
        return batches * self.hparams["updates"]

    def batches(self, optimizer_steps: int) -> int:
        """Inverse of `optimizer_steps`."""
        return optimizer_steps // self.hparams["updates"]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Rewards of greedy answers, and which are those of the data."""
        asked = self.asked(*batch, batch_idx)
        if asked:
            done = self.written(asked, Sampling(temperature=0), self.hparams["max_new_tokens"])
            rewards = [self.worth(q.prompt, new, q.answer) for q, new in zip(asked, done, strict=True)]
            mean = torch.tensor(rewards).mean()
            means = {"val/loss": -mean, "val/reward": mean, "val/accuracy": matches(asked, done)}
            self.log_means(means, len(asked))

    def dashboard(self) -> dict[str, list[str]]:
        """Rewards, and what they are made of."""
        return {
            "reward": ["train/reward", "val/reward"],
            "right answers": ["val/accuracy"],
            "groups that teach something": ["train/informative"],
            "tokens in an answer": ["train/answer_tokens"],
        }
