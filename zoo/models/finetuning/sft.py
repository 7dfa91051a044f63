"""Supervised fine-tuning."""

from typing import cast

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import Count, Positive
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.autoregressive.language_model_base import LanguageModelBase
from zoo.models.finetuning.base import FineTuned, Policy
from zoo.nn.optim.components import Optimizer


@register("model", "sft")
class SFT(FineTuned):
    """Supervised fine-tuning on the answers of the data, not the prompts.

    `loss` is nats per scored token. Every token of a batch has the same weight, for any number of accumulated parts and
    processes.

    Args:
        spec: what the data looks like.
        policy: the model to fine-tune; `init_from=RUN` sets it.
        lora_rank: rank of the adapters of linear layers, which alone are trained; 0 trains all weights.
        lora_alpha: adapters are scaled by lora_alpha / lora_rank.
        lora_targets: layers with adapters, by names or patterns: "query", "blocks.0.*"; None is all but the head.
        lora_rslora: scale adapters by lora_alpha / sqrt(lora_rank) (Kalajdzievski 2023, 2312.03732).
        lora_dora: train the norms of a matrix's rows beside their directions (Liu et al. 2024, 2402.09353).
        lora_4bit: store the frozen matrices with adapters in 4 bits (QLoRA, Dettmers et al. 2023, 2305.14314).
        optimizer: with its learning rate and schedule.
        n_eval_prompts: held-out prompts answered at each validation, for `val/accuracy`.
    """

    paper = "Wei et al. 2021 (FLAN, arXiv:2109.01652); Hu et al. 2021 (LoRA, arXiv:2106.09685)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        policy: Policy = "language_model",
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
        self.counted: Tensor | None = None  # tokens in the mean of the accumulated gradient
        self.shrink: Tensor | None = None  # factor on the gradient after the next backward pass

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch, weighted by its tokens."""
        terms = self.loss(batch)
        self.log_terms(terms)
        parts, world = self.trainer.accumulate_grad_batches, self.trainer.world_size
        if parts == world == 1:
            return terms["loss"]
        # Lightning divides by the parts and averages over the processes. The accumulated gradient stays a mean over all
        # tokens: this batch is added in units of the mean so far, and `on_after_backward` rescales the sum.
        own = (batch.y >= 0).sum().float()
        tokens = own if world == 1 else cast(Tensor, self.all_gather(own)).sum()
        if self.counted is None:
            before = self.counted = tokens
        else:
            before, self.counted = self.counted, self.counted + tokens
            self.shrink = before / self.counted
        return terms["loss"] * (own * parts * world / before)

    def on_after_backward(self) -> None:
        """Rescale to the mean over all tokens since the last step."""
        if self.shrink is not None:
            gradients = [p.grad for p in self.parameters() if p.grad is not None]
            torch._foreach_mul_(gradients, self.shrink)
            self.shrink = None

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Reset the token count."""
        self.counted = None

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log nats per token and bits per byte of held-out answers, and the accuracy of greedy ones."""
        super().validation_step(batch, batch_idx)
        self.log_accuracy(batch.x, batch.y, batch_idx)

    def charts(self) -> dict[str, list[str]]:
        """Loss, bits per byte and accuracy."""
        return LanguageModelBase.charts(self) | super().charts()
