"""Group-relative policy optimisation."""

from dataclasses import dataclass
from typing import Annotated, Any, cast

import torch
from annotated_types import Ge
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import Component, Count, NonNegative, Positive, PositiveInt
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.finetuning.base import Policy, ReferenceFineTuned, exact_match
from zoo.models.finetuning.rewards import reward as named_reward
from zoo.nn.losses.policy_gradient import group_advantages, kl_estimator_k3, masked_mean, ppo_clip
from zoo.nn.optim.components import Optimizer
from zoo.nn.samplers.autoregressive import SamplingParams
from zoo.nn.samplers.rollout import collate_examples, prompt_examples


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
class GRPO(ReferenceFineTuned):
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
        optimizer: what moves the weights, with its learning rate and schedule.
        checked: held-out prompts that are answered at each validation.
    """

    paper = "Shao et al. 2024, 2402.03300"

    def __init__(
        self,
        spec: DataSpec,
        *,
        policy: Policy = "language_model",
        reward: Annotated[str | dict[str, Any], Component("reward")] = "exact",
        group: Annotated[int, Ge(2)] = 8,
        max_new_tokens: PositiveInt | None = None,
        epsilon: Positive = 0.2,
        beta: NonNegative = 0.0,
        updates: PositiveInt = 1,
        accumulate: PositiveInt = 1,
        clip: NonNegative = 1.0,
        rank: Count = 0,
        alpha: Positive = 16.0,
        optimizer: Optimizer = "adamw",
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
        asked = [q for q in prompt_examples(batch.x, batch.y, self.begin, self.end) for _ in range(group)]
        done = self.written(asked, SamplingParams(), self.hparams["max_new_tokens"])
        rewards = torch.tensor([self.worth(q.prompt, new, q.answer) for q, new in zip(asked, done, strict=True)])
        rewards = rewards.view(-1, group)
        x, y = collate_examples([q.prompt for q in asked], done, self.end)
        return Rollout(*(t.to(self.device) for t in (x, y, rewards, group_advantages(rewards).flatten())))

    def surrogate(self, made: Rollout, old: Tensor | None = None) -> tuple[dict[str, Tensor], Tensor]:
        """Terms of the loss, and the log-probabilities (N, T) of the tokens.

        Args:
            made: answers and their advantages.
            old: log-probabilities when they were written; None where the policy has not changed since.
        """
        batch, mask = Batch(made.x, made.y), made.y >= 0
        new = -self.token_nll(batch)[0]
        old = new.detach() if old is None else old
        gain = ppo_clip(new, old, made.advantages, self.hparams["epsilon"])
        terms = {"reward": made.rewards.mean(), "answer_tokens": mask.sum(1).float().mean()}
        terms["informative"] = (
            (made.rewards.amax(1) > made.rewards.amin(1)).float().mean()
        )  # groups that teach something
        if self.hparams["beta"]:
            apart = kl_estimator_k3(new, -self.reference_nats(batch))
            gain = gain - self.hparams["beta"] * apart
            terms["kl"] = masked_mean(apart.detach(), mask)
        return {"loss": -masked_mean(gain, mask), **terms}, new.detach()

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

    def optimizer_steps_to_batches(self, steps: int) -> int:
        """Inverse of `optimizer_steps`."""
        return steps // self.hparams["updates"]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Rewards of greedy answers, and which are those of the data."""
        asked = self.asked(batch.x, batch.y, batch_idx)
        if asked:
            done = self.written(asked, SamplingParams(temperature=0), self.hparams["max_new_tokens"])
            rewards = [self.worth(q.prompt, new, q.answer) for q, new in zip(asked, done, strict=True)]
            mean = torch.tensor(rewards).mean()
            means = {"val/loss": -mean, "val/reward": mean, "val/accuracy": exact_match(asked, done)}
            self.log_epoch_mean(means, len(asked))

    def charts(self) -> dict[str, list[str]]:
        """Rewards, and what they are made of."""
        return {
            "reward": ["train/reward", "val/reward"],
            "right answers": ["val/accuracy"],
            "groups that teach something": ["train/informative"],
            "tokens in an answer": ["train/answer_tokens"],
        }
