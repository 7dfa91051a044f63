"""Reward models."""

from typing import Any

import torch
from torch import Tensor, nn

from zoo.core.errors import ConfigError
from zoo.core.registry import register
from zoo.core.signature import Count, NonNegative, Positive
from zoo.core.spaces import Preference
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.finetuning.base import FineTuned, Policy
from zoo.nn.losses.preference import bradley_terry_loss
from zoo.nn.optim.components import Optimizer


@register("model", "reward_model")
class RewardModel(FineTuned):
    """Reward model: a language model whose head gives one number to an answer, learned from pairs of answers.

    The probability that one answer is preferred to another is the sigmoid of the difference of their rewards. `loss` is
    the negative log-likelihood of the preferences in nats; ln 2 at the start. The head reads the hidden state of
    an answer's last token. `model=grpo model.reward_model=RUN` and `model=ppo model.reward_model=RUN` use the rewards.

    Args:
        spec: what the data looks like.
        policy: the language model whose network is used; `init_from=RUN` sets it.
        centre_weight: weight of the square of a pair's summed rewards, which keeps the mean near zero (Eisenstein et
            al. 2023, arXiv:2312.09244, section 2).
        lora_rank: rank of the adapters of linear layers, which are trained beside the head; 0 trains all weights.
        lora_alpha: adapters are scaled by lora_alpha / lora_rank.
        lora_targets: layers with adapters, by names or patterns: "query", "blocks.0.*"; None is all but the head.
        lora_rslora: scale adapters by lora_alpha / sqrt(lora_rank) (Kalajdzievski 2023, 2312.03732).
        lora_dora: train the norms of a matrix's rows beside their directions (Liu et al. 2024, 2402.09353).
        lora_4bit: store the frozen matrices with adapters in 4 bits (QLoRA, Dettmers et al. 2023, 2305.14314).
        optimizer: with its learning rate and schedule.

    Raises:
        ConfigError: the network of the policy does not give hidden states.
    """

    accepts = (Preference,)
    paper = "Bradley & Terry 1952 (Biometrika 39); Ouyang et al. 2022 (arXiv:2203.02155)"
    without = (
        "sample", "likelihood", "log_prob", "generate", "token_loss", "token_accuracy", "token_confidence",
        "token_sampling", "export", "merge",
    )  # fmt: skip

    def __init__(
        self,
        spec: DataSpec,
        *,
        policy: Policy = "language_model",
        centre_weight: NonNegative = 0.0,
        lora_rank: Count = 0,
        lora_alpha: Positive = 16.0,
        lora_targets: list[str] | None = None,
        lora_rslora: bool = False,
        lora_dora: bool = False,
        lora_4bit: bool = False,
        optimizer: Optimizer = "adamw",
    ) -> None:
        super().__init__(spec)
        if not hasattr(self.net, "hidden_states"):
            raise ConfigError(
                f"model.policy={self.policy.registered_name}: its network does not give hidden states. "
                "Choose language_model with the backbone transformer, rnn, lstm or gru."
            )
        self.head = nn.Linear(self.net.embedding.embedding_dim, 1, bias=False)
        nn.init.zeros_(self.head.weight)
        shift = getattr(getattr(self.net, "norm", None), "bias", None)
        if shift is not None and not centre_weight:
            shift.requires_grad_(False)  # it changes all rewards alike, and pairs do not determine that

    def rewards(self, batch: Batch) -> Tensor:
        """Rewards (N,) of the answers, the scored tokens of rows x and y (N, T)."""
        x, y = batch
        place = torch.arange(y.shape[1], device=y.device)
        last = torch.where(y >= 0, place, 0).amax(1)  # (N,) after the last token of an answer its end is the target
        hidden = self.net.hidden_states(x)[torch.arange(len(x), device=x.device), last]  # (N, D)
        return self.head(hidden).squeeze(1).float()

    def answer_rewards(self, batch: Batch) -> Tensor:
        """See `SupportsAnswerRewards`."""
        return self.rewards(Batch(batch.x.flatten(0, 1), batch.y.flatten(0, 1))).view(-1, 2)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nats per preference, the share of pairs in the right order, and their mean difference of rewards."""
        rewards = self.answer_rewards(batch)
        nats = bradley_terry_loss(rewards).mean()
        loss = nats + self.hparams["centre_weight"] * rewards.sum(1).square().mean()
        apart = (rewards[:, 0] - rewards[:, 1]).detach()
        return {"loss": loss, "nats": nats, "accuracy": (apart > 0).float().mean(), "margin": apart.mean()}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the terms on held-out pairs."""
        self.log_epoch_mean({f"val/{k}": v for k, v in self.loss(batch).items()}, len(batch))

    def configure_optimizers(self) -> Any:
        """One optimizer of the policy's trainable weights and the head."""
        return self.build_optimizer(p for p in self.parameters() if p.requires_grad)

    def charts(self) -> dict[str, list[str]]:
        """Loss and accuracy."""
        return super().charts() | {"loss": ["train/loss", "val/loss"], "accuracy": ["val/accuracy"]}
