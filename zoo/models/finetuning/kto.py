"""Kahneman-Tversky optimisation."""

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import Count, NonNegative, Positive
from zoo.core.spaces import ABSENT, Preference
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.finetuning.base import Policy, ReferenceFineTuned
from zoo.nn.losses.preference import kto_loss
from zoo.nn.optim.components import Optimizer


@register("model", "kto")
class KTO(ReferenceFineTuned):
    """Kahneman-Tversky optimisation: learns from answers that are each labelled as good or bad, without pairs.

    The reward of an answer is its log-likelihood ratio between policy and reference. It is compared with the mean
    ratio of unrelated answers, an estimate of KL(policy || reference): each prompt of the batch takes the answer of the
    next one. So batches must have several prompts. `loss` is half the mean weight at the start, and at most the weight.

    Pairs of answers are a good and a bad one. Of records with a label, one of the two is absent.

    Args:
        spec: what the data looks like.
        policy: the model to fine-tune; `init_from=RUN` sets it.
        beta: reward per nat of log-likelihood ratio; small values allow large changes of the policy.
        desirable_weight: weight of good answers. The paper advises a ratio of 1 to 4/3 between the weights times the
            numbers of good and of bad answers.
        undesirable_weight: weight of bad answers.
        lora_rank: rank of the adapters of linear layers, which alone are trained; 0 trains all weights.
        lora_alpha: adapters are scaled by lora_alpha / lora_rank.
        lora_targets: layers with adapters, by names or patterns: "query", "blocks.0.*"; None is all but the head.
        lora_rslora: scale adapters by lora_alpha / sqrt(lora_rank) (Kalajdzievski 2023, 2312.03732).
        lora_dora: train the norms of a matrix's rows beside their directions (Liu et al. 2024, 2402.09353).
        lora_4bit: store the frozen matrices with adapters in 4 bits (QLoRA, Dettmers et al. 2023, 2305.14314).
        optimizer: with its learning rate and schedule.
        n_eval_prompts: held-out prompts answered at each validation; the good answer counts as correct.
    """

    accepts = (Preference,)
    paper = "Ethayarajh et al. 2024 (arXiv:2402.01306)"
    learns_from_labels = True  # one of the two answers may be absent

    def __init__(
        self,
        spec: DataSpec,
        *,
        policy: Policy = "language_model",
        beta: Positive = 0.1,
        desirable_weight: NonNegative = 1.0,
        undesirable_weight: NonNegative = 1.0,
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

    def log_ratio(self, batch: Batch) -> Tensor:
        """Log-likelihood ratio (N,) of the answers between policy and reference, in nats."""
        return self.reference_nll(batch).sum(1) - self.token_nll(batch)[0].sum(1)

    @torch.no_grad()
    def reference_point(self, batch: Batch) -> Tensor:
        """Mean log-likelihood ratio of each prompt with the answer of the next row, at least 0: z0 of equation 8.

        Args:
            batch: rows x and y (N, T); those without scored tokens are left out. New rows are cut to T tokens.
        """
        given = (batch.y >= 0).any(1)  # (N,)
        n = given.sum().clamp(min=1)
        order = (~given).int().argsort(stable=True)  # those with an answer first
        following = torch.empty_like(order).scatter_(
            0, order, order[(torch.arange(len(order), device=n.device) + 1) % n]
        )
        ratio = self.log_ratio(with_answers_of(batch, following))
        return ((ratio * given).sum() / n).clamp(min=0)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Loss, the reference point, and the mean rewards of good and bad answers, in nats."""
        # All good answers and then all bad ones: the next row has another prompt, and its answer is unrelated.
        answers = Batch(*(rows.transpose(0, 1).flatten(0, 1) for rows in batch))  # (2 B, T)
        good = torch.arange(len(answers.x), device=batch.x.device) < len(batch.x)
        given = (answers.y >= 0).any(1)
        h, ratio, kl = self.hparams, self.log_ratio(answers), self.reference_point(answers)
        loss = kto_loss(ratio, kl, good, h["beta"], weights=(h["desirable_weight"], h["undesirable_weight"]))
        rewards = h["beta"] * ratio.detach()
        means = {
            name: (rewards * some).sum() / some.sum().clamp(min=1)
            for name, some in (("reward_desirable", good & given), ("reward_undesirable", ~good & given))
        }
        return {"loss": (loss * given).sum() / given.sum(), "kl": kl, **means}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the terms on held-out answers, and the accuracy of greedy ones."""
        self.log_epoch_mean({f"val/{k}": v for k, v in self.loss(batch).items()}, len(batch))
        self.log_accuracy(batch.x[:, 0], batch.y[:, 0], batch_idx)

    def charts(self) -> dict[str, list[str]]:
        """Loss, rewards and accuracy."""
        return super().charts() | {
            "rewards": ["train/reward_desirable", "train/reward_undesirable"],
            "KL divergence": ["train/kl"],
        }


def with_answers_of(batch: Batch, other: Tensor) -> Batch:
    """Rows (N, T) with the prompt of row i and what follows the prompt of row other[i], cut to T tokens."""
    x, y = batch
    start = (y >= 0).int().argmax(1)  # (N,) the position that predicts the first token of the answer
    place = torch.arange(x.shape[1], device=x.device)
    source = place - start[:, None] + start[other][:, None]  # (N, T) position in the other row
    inside = source.clamp(0, x.shape[1] - 1)
    read = torch.where(place <= start[:, None], x, x[other].gather(1, inside))
    absent = (place < start[:, None]) | (source >= x.shape[1])
    return Batch(read, y[other].gather(1, inside).masked_fill(absent, ABSENT))
