"""Direct preference optimisation."""

from typing import Annotated

from annotated_types import Interval
from torch import Tensor

from zoo.core.errors import ConfigError
from zoo.core.registry import register
from zoo.core.signature import Count, NonNegative, Positive
from zoo.core.spaces import Preference
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.finetuning.base import Policy, ReferenceFineTuned
from zoo.nn.losses.policy_gradient import masked_mean
from zoo.nn.losses.preference import WITH_REFERENCE, PreferenceLoss, preference_loss
from zoo.nn.optim.components import Optimizer


@register("model", "dpo")
class DPO(ReferenceFineTuned):
    """Direct preference optimisation: raises the likelihood ratio of chosen over rejected answers.

    `loss` is -log sigmoid(reward of the chosen answer - that of the rejected one); ln 2 at the start. The reward of an
    answer is beta times its log-likelihood ratio between policy and reference. The setting of this name chooses a
    relative: "hinge" and "ipo" of the same ratio, "simpo" and "orpo" without a reference.

    DPO alone can lower both likelihoods, as long as that of the rejected answer falls further. `sft_weight` adds the
    negative log-likelihood of the chosen answer, in nats per token (Pang et al. 2024, arXiv:2404.19733, eq. 1).

    Args:
        spec: what the data looks like.
        policy: the model to fine-tune; `init_from=RUN` sets it.
        loss: function of the pair; see `zoo.nn.losses.preference`.
        beta: reward per nat of log-likelihood ratio; small values allow large changes of the policy. Of "simpo" and
            "orpo" per nat per token, where 2 and 0.1 are usual.
        label_smoothing: share of the pairs that may be swapped, of "sigmoid".
        margin: difference of rewards to reach, of "simpo".
        sft_weight: weight of the chosen answer's nats per token; 0 is the published DPO.
        lora_rank: rank of the adapters of linear layers, which alone are trained; 0 trains all weights.
        lora_alpha: adapters are scaled by lora_alpha / lora_rank.
        lora_targets: layers with adapters, by names or patterns: "query", "blocks.0.*"; None is all but the head.
        lora_rslora: scale adapters by lora_alpha / sqrt(lora_rank) (Kalajdzievski 2023, 2312.03732).
        lora_dora: train the norms of a matrix's rows beside their directions (Liu et al. 2024, 2402.09353).
        lora_4bit: store the frozen matrices with adapters in 4 bits (QLoRA, Dettmers et al. 2023, 2305.14314).
        optimizer: with its learning rate and schedule.
        n_eval_prompts: held-out prompts answered at each validation; the chosen answer counts as correct.

    Raises:
        ConfigError: a setting that the loss does not have, or "orpo" without `sft_weight`.
    """

    accepts = (Preference,)
    paper = "Rafailov et al. 2023 (arXiv:2305.18290)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        policy: Policy = "language_model",
        loss: PreferenceLoss = "sigmoid",
        beta: Positive = 0.1,
        label_smoothing: Annotated[float, Interval(ge=0.0, lt=0.5)] = 0.0,
        margin: NonNegative = 0.0,
        sft_weight: NonNegative = 0.0,
        lora_rank: Count = 0,
        lora_alpha: Positive = 16.0,
        lora_targets: list[str] | None = None,
        lora_rslora: bool = False,
        lora_dora: bool = False,
        lora_4bit: bool = False,
        optimizer: Optimizer = "adamw",
        n_eval_prompts: Count = 256,
    ) -> None:
        super().__init__(spec)
        for setting, of in (("label_smoothing", "sigmoid"), ("margin", "simpo")):
            if self.hparams[setting] and loss != of:
                raise ConfigError(
                    f"model.{setting}={self.hparams[setting]}: model.loss={loss} does not have it. "
                    f"Choose model.loss={of}, or leave it out."
                )
        if loss == "orpo" and not sft_weight:
            raise ConfigError(
                "model.loss=orpo: needs the likelihood of the chosen answer beside it. Set model.sft_weight=1."
            )

    @property
    def needs_reference(self) -> bool:
        """Whether the loss has the ratio to the reference."""
        return self.hparams["loss"] in WITH_REFERENCE

    def compare(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Loss (B,) and rewards (B, 2) of pairs, and the nats of each token of their answers (2 B, T)."""
        answers = Batch(batch.x.flatten(0, 1), batch.y.flatten(0, 1))  # (2 B, T)
        nats = self.token_nll(answers)[0]
        policy = -nats.sum(1).view(-1, 2)
        reference = -self.reference_nll(answers).sum(1).view(-1, 2) if self.needs_reference else None
        h, lengths = self.hparams, (answers.y >= 0).sum(1).view(-1, 2)
        loss, rewards = preference_loss(
            h["loss"], policy, reference, lengths, h["beta"], label_smoothing=h["label_smoothing"], margin=h["margin"]
        )
        return loss, rewards, nats

    def answer_rewards(self, batch: Batch) -> Tensor:
        """See `SupportsAnswerRewards`."""
        return self.compare(batch)[1]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Loss, share of pairs whose chosen answer has the larger reward, and rewards in nats."""
        loss, rewards, nats = self.compare(batch)
        chosen, rejected = rewards.unbind(1)
        cost = masked_mean(nats[::2], batch.y[:, 0] >= 0)
        return {
            "loss": loss.mean() + self.hparams["sft_weight"] * cost,
            "preference_loss": loss.detach().mean(),
            "chosen_nats": cost.detach(),
            "reward_accuracy": (chosen > rejected).float().mean(),
            "reward_margin": (chosen - rejected).mean(),
            "reward_chosen": chosen.mean(),
            "reward_rejected": rejected.mean(),
        }

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the terms on held-out pairs, and the accuracy of greedy answers."""
        self.log_epoch_mean({f"val/{k}": v for k, v in self.loss(batch).items()}, len(batch))
        self.log_accuracy(batch.x[:, 0], batch.y[:, 0], batch_idx)

    def charts(self) -> dict[str, list[str]]:
        """Loss, rewards and accuracy."""
        rewards = ["train/reward_chosen", "train/reward_rejected"]
        return super().charts() | {"rewards": rewards, "chosen preferred": ["val/reward_accuracy"]}
