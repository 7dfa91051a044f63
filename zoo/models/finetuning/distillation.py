"""Distillation of a language model into a smaller one."""

from typing import Annotated, Any

import torch
from annotated_types import Interval
from torch import Tensor

from zoo.core.errors import ConfigError
from zoo.core.registry import register
from zoo.core.signature import Component, Count, Fraction, NonNegative, Positive
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.autoregressive.language_model_base import LanguageModelBase
from zoo.models.finetuning.base import FineTuned
from zoo.nn.losses.distillation import Divergence, distillation_loss
from zoo.nn.optim.components import Optimizer
from zoo.nn.samplers.rollout import collate_examples, prompt_examples
from zoo.nn.samplers.sampling_params import SamplingParams


@register("model", "distillation")
class Distillation(FineTuned):
    """Distillation: a student learns the next-token distributions of a teacher.

    `loss` is the divergence of the distributions in nats per scored token, plus `nll_weight` times that of the data.
    With `on_policy`, a share of the batches consists of the student's own answers to the prompts of the data. So the
    teacher corrects the mistakes that the student makes (Agarwal et al. 2024). Validation reports the nats of the data,
    as for any language model.

    Args:
        spec: what the data looks like.
        teacher: a trained language model; `init_from=RUN` sets it.
        policy: the student, a language model to train from the start.
        divergence: see `zoo.nn.losses.distillation`.
        mix: weight of the teacher in "jsd".
        temperature: of both distributions; the loss is multiplied by its square (Hinton et al. 2015).
        nll_weight: weight of the data's nats per token.
        on_policy: share of the batches that the student writes.
        lora_rank: rank of the adapters of linear layers, which alone are trained; 0 trains all weights.
        lora_alpha: adapters are scaled by lora_alpha / lora_rank.
        lora_targets: layers with adapters, by names or patterns: "query", "blocks.0.*"; None is all but the head.
        lora_rslora: scale adapters by lora_alpha / sqrt(lora_rank) (Kalajdzievski 2023, 2312.03732).
        lora_dora: train the norms of a matrix's rows beside their directions (Liu et al. 2024, 2402.09353).
        lora_4bit: store the frozen matrices with adapters in 4 bits (QLoRA, Dettmers et al. 2023, 2305.14314).
        optimizer: with its learning rate and schedule.
        n_eval_prompts: held-out prompts answered at each validation, if the data have prompts.

    Raises:
        ConfigError: the teacher does not give the probabilities of all tokens.
    """

    paper = "Hinton et al. 2015 (arXiv:1503.02531); Agarwal et al. 2024 (arXiv:2306.13649)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        teacher: Annotated[str | dict[str, Any], Component("model", pretrained=True)] = "language_model",
        policy: Annotated[str | dict[str, Any], Component("model")] = "language_model",
        divergence: Divergence = "forward_kl",
        mix: Annotated[float, Interval(gt=0.0, lt=1.0)] = 0.5,
        temperature: Positive = 1.0,
        nll_weight: NonNegative = 0.0,
        on_policy: Fraction = 0.0,
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
        self.teacher: Any = self.build_component("teacher", "model", DataSpec(spec.tokens, name=spec.name))
        if not isinstance(self.teacher, LanguageModelBase) or "token_confidence" not in self.teacher.abilities:
            raise ConfigError(
                f"model.teacher={self.teacher.registered_name}: does not give the probabilities of all tokens. "
                "Choose a language model."
            )
        self.teacher.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Distillation":
        """Set the mode; the teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    # -- the teacher -----------------------------------------------------------------------------------------

    def pretrained_state(self) -> dict[str, Tensor]:
        """Weights of the teacher."""
        return dict(self.teacher.state_dict())

    def load_pretrained(self, weights: Any) -> None:
        """Load the weights of another training into the teacher."""
        self.teacher.load_state_dict(dict(weights))

    # -- training --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def own_answers(self, batch: Batch) -> Batch:
        """Answers of the student to the prompts of a batch, at temperature 1, as scored rows.

        Random numbers come from torch's global generator, which checkpoints restore.
        """
        asked = prompt_examples(batch.x, batch.y, self.begin, self.end, packed=self.masks_documents)
        done = self.answers(asked, SamplingParams(), max(len(q.answer) for q in asked))
        x, y = collate_examples([q.prompt for q in asked], done, self.end)
        return Batch(x.to(self.device), y.to(self.device))

    def divergence(self, batch: Batch) -> Tensor:
        """Divergence (B, T) in nats of every token, 0 where it is not scored."""
        heat = self.hparams["temperature"]
        logits, target = self.policy.logits(batch)
        with torch.no_grad():
            wanted, _ = self.teacher.logits(batch)
        student, teacher = ((some.float() / heat).log_softmax(-1) for some in (logits, wanted))
        apart = distillation_loss(self.hparams["divergence"], student, teacher, mix=self.hparams["mix"])
        return heat**2 * apart * (target >= 0)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Divergence per scored token, and the nats of the data."""
        h, written = self.hparams, batch
        if h["on_policy"] and self.training and float(torch.rand(())) < h["on_policy"]:
            written = self.own_answers(batch)
        apart = self.divergence(written).sum() / (written.y >= 0).sum()
        terms = {"divergence": apart.detach()}
        if not h["nll_weight"]:
            return {"loss": apart, **terms}
        nats, target = self.token_nll(batch)
        nats = nats.sum() / (target >= 0).sum()
        return {"loss": apart + h["nll_weight"] * nats, **terms, "nats": nats.detach()}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log nats per token and bits per byte of held-out text, and the accuracy of greedy answers to prompts."""
        super().validation_step(batch, batch_idx)
        self.log_accuracy(batch.x, batch.y, batch_idx)

    def charts(self) -> dict[str, list[str]]:
        """Loss, bits per byte, accuracy and divergence."""
        return LanguageModelBase.charts(self) | super().charts() | {"divergence": ["train/divergence"]}
