"""Supervised fine-tuning."""

from typing import cast

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import Count, Positive
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.autoregressive.base import LanguageModelBase
from zoo.models.finetuning.base import FineTuned, Policy
from zoo.nn.optim.components import Optimizer


@register("model", "sft")
class SFT(FineTuned):
    """Supervised fine-tuning: the policy learns the answers of the data, and not the prompts before them.

    `loss` is nats per scored token. However a batch is divided over accumulated parts and over processes, every token
    of it counts the same.

    Args:
        spec: what the data looks like.
        policy: the model to tune; `init_from=RUN` brings it.
        rank: of the adapters of linear layers, and nothing else is trained; 0 trains all weights.
        alpha: adapters are scaled by alpha / rank.
        optimizer: what moves the weights, with its learning rate and schedule.
        checked: held-out prompts that are answered at each validation, for `val/accuracy`.
    """

    paper = "Wei et al. 2021 (FLAN, arXiv:2109.01652); Hu et al. 2021 (LoRA, arXiv:2106.09685)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        policy: Policy = "language_model",
        rank: Count = 0,
        alpha: Positive = 16.0,
        optimizer: Optimizer = "adamw",
        checked: Count = 256,
    ) -> None:
        super().__init__(spec)
        self.counted: Tensor | None = None  # tokens that the gradient so far is the mean over
        self.shrink: Tensor | None = None  # factor on the gradient when this batch has been added

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One batch, weighted by its tokens."""
        terms = self.loss(batch)
        self.log_terms(terms)
        parts, world = self.trainer.accumulate_grad_batches, self.trainer.world_size
        if parts == world == 1:
            return terms["loss"]
        # Lightning divides by the parts and averages over the processes. What is accumulated is kept a mean over all
        # tokens: this batch is added in the units of the mean so far, and `on_after_backward` takes the mean of both.
        own = (batch.y >= 0).sum().float()
        tokens = own if world == 1 else cast(Tensor, self.all_gather(own)).sum()
        if self.counted is None:
            before = self.counted = tokens
        else:
            before, self.counted = self.counted, self.counted + tokens
            self.shrink = before / self.counted
        return terms["loss"] * (own * parts * world / before)

    def on_after_backward(self) -> None:
        """The mean over all tokens since the last step."""
        if self.shrink is not None:
            gradients = [p.grad for p in self.parameters() if p.grad is not None]
            torch._foreach_mul_(gradients, self.shrink)
            self.shrink = None

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Begin anew."""
        self.counted = None

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Nats per token and bits per byte of the held-out answers, and how many are given."""
        super().validation_step(batch, batch_idx)
        self.log_accuracy(batch.x, batch.y, batch_idx)

    def charts(self) -> dict[str, list[str]]:
        """Loss, bits per byte, and right answers."""
        return LanguageModelBase.charts(self) | super().charts()
