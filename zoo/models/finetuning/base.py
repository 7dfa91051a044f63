"""Base classes of fine-tuning: a stage trains a pretrained language model, the policy, with a new objective.

`model=sft init_from=RUN` takes the policy's name, settings, weights and tokenizer from RUN. The next stage continues
from it: `model=dpo init_from=SFT_RUN`.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, cast

import torch
from torch import Tensor, nn

from zoo.core.errors import ZooError
from zoo.core.signature import Component
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.abilities import SupportsExport
from zoo.models.ability import supports
from zoo.models.autoregressive.language_model_base import LanguageModelBase
from zoo.nn.blocks.lora import add_adapters, merge_adapters, plain_state, reset_magnitudes, without_adapters
from zoo.nn.samplers.exportable import ExportableSampler
from zoo.nn.samplers.rollout import PromptExample, complete, prompt_examples
from zoo.nn.samplers.sampling_params import SamplingParams

Policy = Annotated[str | dict[str, Any], Component("model", pretrained=True)]


class FineTuned(LanguageModelBase):
    """A training stage over a policy; a subclass writes `loss` and declares the settings.

    Its settings include `policy`, `lora_rank` and those after it, `optimizer` and `n_eval_prompts`. Each validation
    answers so many held-out prompts greedily. `val/accuracy` is the share of exact matches with the data, token for
    token.

    Args:
        spec: what the data looks like.

    Raises:
        ZooError: the policy cannot continue text, or does not have trainable weights.
    """

    policy: LanguageModelBase

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.policy = self.build_component("policy", "model", DataSpec(spec.tokens, name=spec.name))
        name = self.policy.registered_name
        if isinstance(self.policy, FineTuned):
            raise ZooError(f"model.policy={name}: it is a fine-tuning stage. Choose a model, and init_from=ITS_RUN.")
        if not isinstance(self.policy, LanguageModelBase) or not hasattr(self.policy.net, "prefill"):
            raise ZooError(
                f"model.policy={name}: it cannot continue text. Choose a model that can, such as language_model."
            )
        if not any(p.requires_grad for p in self.policy.parameters()):
            raise ZooError(f"model.policy={name}: it does not have trainable weights. Choose language_model.")
        self.lacks(*({"attention", "export"} - self.policy.abilities.keys()))
        if rank := self.hparams["lora_rank"]:
            add_adapters(
                self.policy.net,
                rank,
                self.hparams["lora_alpha"],
                getattr(self.policy.net, "head", None),
                targets=self.hparams["lora_targets"],
                rslora=self.hparams["lora_rslora"],
                dora=self.hparams["lora_dora"],
                int4=self.hparams["lora_4bit"],
            )
        elif given := [k for k in ("lora_targets", "lora_rslora", "lora_dora", "lora_4bit") if self.hparams[k]]:
            raise ZooError(f"model.{given[0]}={self.hparams[given[0]]}: adapters are off. Set model.lora_rank=8.")

    # -- delegation to the policy ----------------------------------------------------------------------------

    @property
    def net(self) -> Any:
        """The policy's network."""
        return self.policy.net

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits of every target token (B, T, V), and the targets (B, T), negative where they are not scored."""
        return self.policy.logits(batch)

    def attention(self, batch: Batch) -> dict[str, Tensor]:
        """Attention weights of the policy's network."""
        return self.policy.attention(batch)

    def token_nll(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood (B, T) of the targets in nats, 0 where they are not scored; and the targets."""
        return self.policy.token_nll(batch)

    def token_hits(self, batch: Batch) -> Tensor:
        """Whether the likeliest token is the target, for every scored token (N,)."""
        return self.policy.token_hits(batch)

    def sampling(self, options: dict[str, Any]) -> SamplingParams:
        """Sampling parameters of the policy."""
        return self.policy.sampling(options)

    def export_module(self) -> ExportableSampler:
        """Exportable sampler of the policy."""
        if not supports(self.policy, SupportsExport):
            raise ZooError(f"model.policy={self.policy.registered_name}: it is not exportable.")
        return self.policy.export_module()

    def modules_to_compile(self) -> list[torch.nn.Module]:
        """Networks of the policy."""
        return self.policy.modules_to_compile()

    # -- from one stage to the next --------------------------------------------------------------------------

    def pretrained_state(self) -> dict[str, Tensor]:
        """Weights of the policy without adapters, by the names in the policy."""
        return plain_state(self.policy)

    def load_pretrained(self, weights: Mapping[str, Tensor]) -> None:
        """Load weights of another training into the policy."""
        self.policy.load_state_dict(dict(weights), strict=False)  # adapters start from their initialisation
        reset_magnitudes(self.policy.net)

    def merged(self) -> LanguageModelBase:
        """The policy as a separate model, with merged adapters. This stage must not be used afterwards."""
        merge_adapters(self.policy.net)
        return self.policy.requires_grad_(True)

    # -- training --------------------------------------------------------------------------------------------

    def hidden_layers(self) -> list[nn.Module]:
        """Hidden layers of the policy."""
        return self.policy.hidden_layers()

    def configure_optimizers(self) -> Any:
        """One optimizer of the policy's trainable weights."""
        return self.build_optimizer(self.policy.parameters())

    # -- answers to held-out prompts -------------------------------------------------------------------------

    def prompts(self, x: Tensor, y: Tensor, batch_idx: int) -> list[PromptExample]:
        """Prompts of a validation batch that are among the first `n_eval_prompts` of the split."""
        left = max(self.hparams["n_eval_prompts"] - batch_idx * len(x), 0)
        return prompt_examples(x[:left], y[:left], self.begin, self.end, packed=self.masks_documents)

    def answers(self, asked: list[PromptExample], how: SamplingParams, limit: int | None = None) -> list[list[int]]:
        """Answers of the policy, of at most `limit` tokens and within the context.

        Raises:
            ZooError: a prompt fills the context.
        """
        prompts = [q.prompt for q in asked]
        room = self.spec.size + 1 - max(map(len, prompts))
        if room < 1:
            raise ZooError(f"data.context={self.spec.size}: a prompt fills the context. Choose a longer one.")
        return complete(self.net, prompts, how, self.ends, min(limit or room, room), device=self.device)

    def log_accuracy(self, x: Tensor, y: Tensor, batch_idx: int) -> None:
        """Log the share of prompts whose answer matches the data."""
        asked = [
            q for q in self.prompts(x, y, batch_idx) if q.prompt != [self.begin]
        ]  # empty prompts do not determine an answer
        if asked:
            done = self.answers(asked, SamplingParams(temperature=0), max(len(q.answer) for q in asked))
            self.log_epoch_mean({"val/accuracy": exact_match(asked, done, self.ends)}, len(asked))

    def charts(self) -> dict[str, list[str]]:
        """Loss and accuracy."""
        return {"loss": ["train/loss", "val/loss"], "accuracy": ["val/accuracy"]}


def exact_match(asked: list[PromptExample], done: list[list[int]], ends: Sequence[int] = ()) -> Tensor:
    """Share of answers that start with the answer of the data; all tokens that end a text are equal.

    Args:
        asked: prompts with the answers of the data.
        done: answers to them.
        ends: tokens that end a text.
    """
    same = dict.fromkeys(ends, next(iter(ends), 0))  # one of them for all
    plain = [[same.get(token, token) for token in written] for written in done]
    answers = [[same.get(token, token) for token in q.answer] for q in asked]
    right = [written[: len(answer)] == answer for answer, written in zip(answers, plain, strict=True)]
    return torch.tensor(right).float().mean()


class ReferenceFineTuned(FineTuned):
    """A stage that compares the policy with a reference, its state at the start.

    It trains without dropout, which would add noise to the ratios. With adapters the reference is the policy without
    them; else it is a frozen copy, and part of checkpoints.

    Args:
        spec: what the data looks like.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.reference: Any = None
        if self.needs_reference and not self.hparams["lora_rank"]:
            self.reference = copy.deepcopy(self.policy).requires_grad_(False)
        self.train()

    @property
    def needs_reference(self) -> bool:
        """Whether the objective contains the reference."""
        return bool(self.hparams["beta"])

    def train(self, mode: bool = True) -> "ReferenceFineTuned":
        """Set the mode; policy and reference stay in evaluation mode."""
        super().train(mode)
        self.policy.eval()
        for module in self.policy.modules():
            if isinstance(module, nn.RNNBase):
                module.train(mode)  # cuDNN requires it for the backward pass; these modules are without dropout
        if self.reference is not None:
            self.reference.eval()
        return self

    def load_pretrained(self, weights: Mapping[str, Tensor]) -> None:
        """Load weights into the policy and the reference."""
        super().load_pretrained(weights)
        if self.reference is not None:
            self.reference.load_state_dict(dict(weights))

    @torch.no_grad()
    def reference_nll(self, batch: Batch) -> Tensor:
        """Negative log-likelihood (B, T) of the targets under the reference, in nats."""
        if self.reference is not None:
            return cast(Tensor, self.reference.token_nll(batch)[0])
        with without_adapters(self.policy.net):
            return self.policy.token_nll(batch)[0]

    def modules_to_compile(self) -> list[torch.nn.Module]:
        """Networks of the policy and the reference."""
        return super().modules_to_compile() + ([] if self.reference is None else self.reference.modules_to_compile())
