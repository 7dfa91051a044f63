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
from zoo.models.finetuning.base import Policy
from zoo.models.finetuning.rewarded import RewardedFineTuned, TrainedReward
from zoo.nn.losses.policy_gradient import (
    Baseline,
    group_advantages,
    kl_estimator_k3,
    masked_mean,
    masked_sum,
    ppo_clip,
)
from zoo.nn.optim.components import Optimizer
from zoo.nn.samplers.rollout import collate_examples, prompt_examples
from zoo.nn.samplers.sampling_params import SamplingParams


@dataclass(frozen=True)
class Rollout:
    """Sampled answers with their rewards.

    Args:
        x: prompts and answers (N, T), grouped by prompt.
        y: targets (N, T), negative where they are not scored.
        rewards: (B, G).
        advantages: (N,).
    """

    x: Tensor
    y: Tensor
    rewards: Tensor
    advantages: Tensor


@register("model", "grpo")
class GRPO(RewardedFineTuned):
    """Group-relative policy optimisation: policy gradient with several answers per prompt as the baseline.

    Prompts are the tokens before the scored tokens of the data; they are empty where all tokens are scored. `loss` is
    the clipped surrogate, whose value is near 0 throughout training. So `val/loss`, which chooses best.ckpt, is the
    negative mean reward of greedy answers to held-out prompts.

    Args:
        spec: what the data looks like.
        policy: the model to fine-tune; `init_from=RUN` sets it.
        reward: registered function of prompt, completion and answer.
        reward_model: a trained reward model in place of the function: `model.reward_model=RUN`.
        num_generations: answers per prompt.
        baseline: what their rewards are compared with; see `group_advantages`. "leave_one_out" is RLOO.
        equal_answers: weight all answers alike, whatever their length; false weights all tokens alike. With
            baseline=mean, false is Dr. GRPO.
        max_new_tokens: most tokens of an answer; None fills the context.
        clip_range: largest distance from 1 of the ratio of probabilities, new to old.
        beta: weight of the KL divergence from the reference, in reward per nat; 0 needs no reference.
        num_iterations: optimizer steps per batch of answers.
        accumulate: parts in which the answers of a step are scored, to save memory; the gradient is the same.
        clip: largest gradient norm; 0 turns clipping off.
        lora_rank: rank of the adapters of linear layers, which alone are trained; 0 trains all weights.
        lora_alpha: adapters are scaled by lora_alpha / lora_rank.
        lora_targets: layers with adapters, by names or patterns: "query", "blocks.0.*"; None is all but the head.
        lora_rslora: scale adapters by lora_alpha / sqrt(lora_rank) (Kalajdzievski 2023, 2312.03732).
        lora_dora: train the norms of a matrix's rows beside their directions (Liu et al. 2024, 2402.09353).
        lora_4bit: store the frozen matrices with adapters in 4 bits (QLoRA, Dettmers et al. 2023, 2305.14314).
        optimizer: with its learning rate and schedule.
        n_eval_prompts: held-out prompts answered at each validation.
    """

    paper = "Shao et al. 2024 (arXiv:2402.03300)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        policy: Policy = "language_model",
        reward: Annotated[str | dict[str, Any], Component("reward")] = "exact",
        reward_model: TrainedReward = None,
        num_generations: Annotated[int, Ge(2)] = 8,
        baseline: Baseline = "standardised",
        equal_answers: bool = True,
        max_new_tokens: PositiveInt | None = None,
        clip_range: Positive = 0.2,
        beta: NonNegative = 0.0,
        num_iterations: PositiveInt = 1,
        accumulate: PositiveInt = 1,
        clip: NonNegative = 1.0,
        lora_rank: Count = 0,
        lora_alpha: Positive = 16.0,
        lora_targets: list[str] | None = None,
        lora_rslora: bool = False,
        lora_dora: bool = False,
        lora_4bit: bool = False,
        optimizer: Optimizer = "adamw",
        n_eval_prompts: PositiveInt = 256,
    ) -> None:
        super().__init__(spec)

    # -- objective -------------------------------------------------------------------------------------------

    @torch.no_grad()
    def rollout(self, batch: Batch) -> Rollout:
        """Sample `num_generations` answers to every prompt of a batch, at temperature 1.

        Random numbers come from torch's global generator, which checkpoints restore.
        """
        group = self.hparams["num_generations"]
        examples = prompt_examples(batch.x, batch.y, self.begin, self.end, packed=self.masks_documents)
        asked = [q for q in examples for _ in range(group)]
        done = self.answers(asked, SamplingParams(), self.hparams["max_new_tokens"])
        rewards = self.score(asked, done).view(-1, group)
        x, y = collate_examples([q.prompt for q in asked], done, self.end)
        return Rollout(
            *(t.to(self.device) for t in (x, y, rewards, group_advantages(rewards, self.hparams["baseline"]).flatten()))
        )

    def surrogate(self, made: Rollout, old: Tensor | None = None) -> tuple[dict[str, Tensor], Tensor]:
        """Terms of the loss, and the log-probabilities (N, T) of the tokens.

        Args:
            made: answers and their advantages.
            old: log-probabilities under the sampling policy; None if the policy is unchanged.
        """
        batch, mask = Batch(made.x, made.y), made.y >= 0
        new = -self.token_nll(batch)[0]
        old = new.detach() if old is None else old
        gain = ppo_clip(new, old, made.advantages, self.hparams["clip_range"])
        terms = {"reward": made.rewards.mean(), "answer_tokens": mask.sum(1).float().mean()}
        terms["informative"] = (made.rewards.amax(1) > made.rewards.amin(1)).float().mean()  # non-zero advantages
        if self.hparams["beta"]:
            apart = kl_estimator_k3(new, -self.reference_nll(batch))
            gain = gain - self.hparams["beta"] * apart
            terms["kl"] = masked_mean(apart.detach(), mask)
        limit = self.hparams["max_new_tokens"] or self.spec.size
        mean = masked_mean(gain, mask) if self.hparams["equal_answers"] else masked_sum(gain, mask, limit)
        return {"loss": -mean, **terms}, new.detach()

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Surrogate of freshly sampled answers, and their mean reward."""
        return self.surrogate(self.rollout(batch))[0]

    # -- training --------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Sample answers, and take `num_iterations` optimizer steps."""
        optimizer, made = cast(Any, self.optimizers()), self.rollout(batch)
        parts = torch.arange(len(made.x)).tensor_split(min(self.hparams["accumulate"], len(made.x)))
        old: list[Tensor | None] = [None] * len(parts)
        for update in range(self.hparams["num_iterations"]):
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

    def charts(self) -> dict[str, list[str]]:
        """Rewards, accuracy, and statistics of the groups."""
        return super().charts() | {"groups of unequal rewards": ["train/informative"]}
