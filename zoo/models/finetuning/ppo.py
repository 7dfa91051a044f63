"""Proximal policy optimisation."""

from dataclasses import dataclass
from typing import Annotated, Any, cast

import torch
from torch import Tensor, nn

from zoo.core.errors import ConfigError
from zoo.core.registry import register
from zoo.core.signature import Component, Count, Fraction, NonNegative, Positive, PositiveInt
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.autoregressive.base import token_nll
from zoo.models.finetuning.base import Policy
from zoo.models.finetuning.rewarded import RewardedFineTuned, TrainedReward
from zoo.nn.losses.policy_gradient import gae, ppo_clip
from zoo.nn.optim.components import Optimizer
from zoo.nn.samplers.rollout import collate_examples, prompt_examples
from zoo.nn.samplers.sampling_params import SamplingParams


@dataclass(frozen=True)
class Trajectories:
    """Sampled answers with the estimates of the policy that sampled them.

    Args:
        x: prompts and answers (N, T).
        y: targets (N, T), negative where they are not scored.
        old: log-probabilities (N, T) of the tokens.
        advantages: (N, T).
        returns: targets of the values (N, T).
        rewards: scores of the answers (N,).
        kl: log-ratios to the reference (N, T), zero without one.
    """

    x: Tensor
    y: Tensor
    old: Tensor
    advantages: Tensor
    returns: Tensor
    rewards: Tensor
    kl: Tensor


@register("model", "ppo")
class PPO(RewardedFineTuned):
    """Proximal policy optimisation: policy gradient with a learned value of each token as the baseline.

    A linear head on the hidden states of the policy predicts the rewards that follow each token. An answer's reward
    comes with its last token, and `beta` times the log-ratio to the reference is subtracted at every token. An answer
    that reaches `max_new_tokens` ends there. `val/loss`, which chooses best.ckpt, is the negative mean reward of greedy
    answers to held-out prompts.

    Args:
        spec: what the data looks like.
        policy: the model to fine-tune; `init_from=RUN` sets it.
        reward: registered function of prompt, completion and answer.
        reward_model: a trained reward model in place of the function: `model.reward_model=RUN`.
        max_new_tokens: most tokens of an answer; None fills the context.
        clip_range: largest distance from 1 of the ratio of probabilities, new to old.
        beta: weight of the KL divergence from the reference, in reward per nat; 0 needs no reference.
        gamma: discount of later rewards.
        gae_lambda: 0 trusts the values, and 1 the observed rewards; see `gae`.
        value_weight: weight of half the squared error of the values.
        num_iterations: optimizer steps per batch of answers.
        clip: largest gradient norm; 0 turns clipping off.
        lora_rank: rank of the adapters of linear layers, which are trained beside the value head; 0 trains all weights.
        lora_alpha: adapters are scaled by lora_alpha / lora_rank.
        lora_targets: layers with adapters, by names or patterns: "query", "blocks.0.*"; None is all but the head.
        lora_rslora: scale adapters by lora_alpha / sqrt(lora_rank) (Kalajdzievski 2023, 2312.03732).
        lora_dora: train the norms of a matrix's rows beside their directions (Liu et al. 2024, 2402.09353).
        lora_4bit: store the frozen matrices with adapters in 4 bits (QLoRA, Dettmers et al. 2023, 2305.14314).
        optimizer: with its learning rate and schedule.
        n_eval_prompts: held-out prompts answered at each validation.

    Raises:
        ConfigError: the network of the policy does not give hidden states.
    """

    paper = "Schulman et al. 2017 (arXiv:1707.06347); Ouyang et al. 2022 (arXiv:2203.02155)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        policy: Policy = "language_model",
        reward: Annotated[str | dict[str, Any], Component("reward")] = "exact",
        reward_model: TrainedReward = None,
        max_new_tokens: PositiveInt | None = None,
        clip_range: Positive = 0.2,
        beta: NonNegative = 0.05,
        gamma: Fraction = 1.0,
        gae_lambda: Fraction = 0.95,
        value_weight: NonNegative = 0.1,
        num_iterations: PositiveInt = 4,
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
        if not hasattr(self.net, "hidden_states"):
            raise ConfigError(
                f"model.policy={self.policy.registered_name}: its network does not give hidden states. "
                "Choose language_model with the backbone transformer, rnn, lstm or gru."
            )
        self.value_head = nn.Linear(self.net.embedding.embedding_dim, 1)
        nn.init.zeros_(self.value_head.weight)

    # -- objective -------------------------------------------------------------------------------------------

    def evaluate(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities (N, T) of the targets, 0 where they are not scored, and values (N, T) before each."""
        hidden = self.net.hidden_states(x)  # (N, T, D)
        return -token_nll(self.net.project(hidden), y), self.value_head(hidden).squeeze(-1).float()

    @torch.no_grad()
    def rollout(self, batch: Batch) -> Trajectories:
        """Sample an answer to every prompt of a batch, at temperature 1.

        Random numbers come from torch's global generator, which checkpoints restore.
        """
        asked = prompt_examples(batch.x, batch.y, self.begin, self.end, packed=self.masks_documents)
        done = self.answers(asked, SamplingParams(), self.hparams["max_new_tokens"])
        scores = self.score(asked, done).to(self.device)  # (N,)
        x, y = (t.to(self.device) for t in collate_examples([q.prompt for q in asked], done, self.end))
        mask = y >= 0
        old, values = self.evaluate(x, y)
        kl = (old + self.reference_nll(Batch(x, y))) * mask if self.hparams["beta"] else torch.zeros_like(old)
        return self.trajectories(x, y, old, values, scores, kl)

    def trajectories(
        self, x: Tensor, y: Tensor, old: Tensor, values: Tensor, scores: Tensor, kl: Tensor
    ) -> Trajectories:
        """Advantages, standardised over all tokens, and the returns that the values are to predict."""
        mask, h = y >= 0, self.hparams
        place = torch.arange(y.shape[1], device=y.device)
        last = place == torch.where(mask, place, -1).amax(1, keepdim=True)  # (N, T) the last token of each answer
        rewards = scores[:, None] * last - h["beta"] * kl
        raw = gae(rewards, values, mask, h["gamma"], h["gae_lambda"])
        centred = raw - raw[mask].mean()
        advantages = centred / (raw[mask].std(correction=0) + 1e-8) * mask
        return Trajectories(x, y, old, advantages, (raw + values) * mask, scores, kl)

    def surrogate(self, made: Trajectories) -> dict[str, Tensor]:
        """Clipped surrogate and error of the values, means over all tokens; and statistics of the answers."""
        mask, h = made.y >= 0, self.hparams
        new, values = self.evaluate(made.x, made.y)
        gain = ppo_clip(new, made.old, made.advantages, h["clip_range"])[mask].mean()
        error = (values - made.returns)[mask].square().mean() / 2
        return {
            "loss": h["value_weight"] * error - gain,
            "reward": made.rewards.mean(),
            "kl": made.kl.sum(1).mean(),
            "value_loss": error.detach(),
            "answer_tokens": mask.sum(1).float().mean(),
        }

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Surrogate of freshly sampled answers, and their mean reward."""
        return self.surrogate(self.rollout(batch))

    # -- training --------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """One optimizer of the policy's trainable weights and the value head."""
        return self.build_optimizer(p for p in self.parameters() if p.requires_grad)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Sample answers, and take `num_iterations` optimizer steps."""
        optimizer, made = cast(Any, self.optimizers()), self.rollout(batch)
        for _ in range(self.hparams["num_iterations"]):
            terms = self.surrogate(made)
            self.manual_backward(terms["loss"])
            optimizer.step()
            optimizer.zero_grad()
        cast(Any, self.lr_schedulers()).step()
        self.log_terms(terms)

    def charts(self) -> dict[str, list[str]]:
        """Rewards, accuracy, divergence and values."""
        return super().charts() | {"KL divergence": ["train/kl"], "error of values": ["train/value_loss"]}
