"""Fine-tuning: a language model that was trained before, the policy, and what it is trained on with now.

A stage is a model that holds the policy as a part: `model=sft init_from=RUN` takes the policy's name, settings, weights
and tokenizer from RUN. What it learned goes on in the same way: `model=dpo init_from=TUNED_RUN`.
"""

import copy
from collections.abc import Mapping
from typing import Annotated, Any, cast

import torch
from torch import Tensor, nn

from zoo.core.errors import ZooError
from zoo.core.signature import Component
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.abilities import SupportsExport, supports
from zoo.models.autoregressive.base import LanguageModelBase
from zoo.nn.blocks.lora import adapters, add_adapters, merge_adapters, without_adapters
from zoo.nn.samplers.autoregressive import SamplingParams
from zoo.nn.samplers.exportable import ExportableSampler
from zoo.nn.samplers.rollout import PromptExample, complete, prompt_examples

Policy = Annotated[str | dict[str, Any], Component("model", pretrained=True)]


class FineTuned(LanguageModelBase):
    """A stage of training over a policy; a subclass writes `loss` and names its settings.

    All have `policy`, and `rank` and `alpha` (see `zoo.nn.blocks.lora`; rank 0 trains all weights), `optimizer`,
    and `checked`: so many held-out prompts are answered greedily at each validation,
    and `val/accuracy` is the share of answers that are those of the data, token for token.

    Args:
        spec: what the data looks like.

    Raises:
        ZooError: the policy is no model that writes text, or has nothing to train.
    """

    policy: LanguageModelBase

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.policy = self.build_component("policy", "model", DataSpec(spec.tokens, name=spec.name))
        name = self.policy.registered_name
        if isinstance(self.policy, FineTuned):
            raise ZooError(f"model.policy={name} is a stage of training: take a model for it, and init_from=ITS_RUN.")
        if not isinstance(self.policy, LanguageModelBase) or not hasattr(self.policy.net, "prefill"):
            raise ZooError(
                f"model.policy={name} writes no text from left to right: take one that does, such as language_model."
            )
        if not any(p.requires_grad for p in self.policy.parameters()):
            raise ZooError(f"model.policy={name} has no weights to train: take one that has, such as language_model.")
        self.lacks(*({"attention", "export"} - self.policy.abilities.keys()))
        if rank := self.hparams["rank"]:
            add_adapters(self.policy.net, rank, self.hparams["alpha"], but=getattr(self.policy.net, "head", None))

    # -- the policy, which does all the work -----------------------------------------------------------------

    @property
    def net(self) -> Any:
        """The policy's network."""
        return self.policy.net

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Of every target token (B, T, V), and the targets (B, T), negative where they are not scored."""
        return self.policy.logits(batch)

    def attention(self, batch: Batch) -> dict[str, Tensor]:
        """Attention weights of the policy's network."""
        return self.policy.attention(batch)

    def token_nll(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cost of every target token (B, T) in nats, zero where it is not scored; and the targets."""
        return self.policy.token_nll(batch)

    def token_hits(self, batch: Batch) -> Tensor:
        """Is the likeliest token the right one, for every one that is scored? (N,)"""
        return self.policy.token_hits(batch)

    def sampling(self, options: dict[str, Any]) -> SamplingParams:
        """The policy's choice of tokens."""
        return self.policy.sampling(options)

    def export_module(self) -> ExportableSampler:
        """The policy's."""
        if not supports(self.policy, SupportsExport):
            raise ZooError(f"model.policy={self.policy.registered_name} has no core to export.")
        return self.policy.export_module()

    def modules_to_compile(self) -> list[torch.nn.Module]:
        """The policy's network."""
        return self.policy.modules_to_compile()

    # -- from one stage to the next --------------------------------------------------------------------------

    def pretrained_state(self) -> dict[str, Tensor]:
        """Those weights of the policy that it has without adapters, by the policy's own names."""
        extra = {f"net.{name}" for name in adapters(self.policy.net)}
        return {name: weight for name, weight in self.policy.state_dict().items() if name not in extra}

    def load_pretrained(self, weights: Mapping[str, Tensor]) -> None:
        """Give the policy the weights that it had at the end of another training."""
        self.policy.load_state_dict(dict(weights), strict=False)  # adapters begin anew

    def merged(self) -> LanguageModelBase:
        """The policy as a model of its own, adapters added to the matrices that they correct; this model is used up."""
        merge_adapters(self.policy.net)
        return self.policy.requires_grad_(True)

    # -- training --------------------------------------------------------------------------------------------

    def hidden_layers(self) -> list[nn.Module]:
        """Those of the policy."""
        return self.policy.hidden_layers()

    def configure_optimizers(self) -> Any:
        """One optimizer for what is trained of the policy."""
        return self.build_optimizer(self.policy.parameters())

    # -- answers to held-out prompts -------------------------------------------------------------------------

    def asked(self, x: Tensor, y: Tensor, batch_idx: int) -> list[PromptExample]:
        """The prompts of a validation batch that are among the first `checked` of the split."""
        left = max(self.hparams["checked"] - batch_idx * len(x), 0)
        return prompt_examples(x[:left], y[:left], self.begin, self.end)

    def written(self, asked: list[PromptExample], how: SamplingParams, limit: int | None = None) -> list[list[int]]:
        """What the policy answers: at most so many tokens, and as many as a row of the data has room for.

        Raises:
            ZooError: a prompt leaves no room.
        """
        prompts = [q.prompt for q in asked]
        room = self.spec.size + 1 - max(map(len, prompts))
        if room < 1:
            raise ZooError(f"a prompt fills the context of {self.spec.size}: give a longer one (data.context).")
        return complete(self.net, prompts, how, self.end, min(limit or room, room), device=self.device)

    def log_accuracy(self, x: Tensor, y: Tensor, batch_idx: int) -> None:
        """Log which share of prompts is answered as the data do."""
        asked = [q for q in self.asked(x, y, batch_idx) if q.prompt != [self.begin]]  # there is something to answer
        if asked:
            done = self.written(asked, SamplingParams(temperature=0), max(len(q.answer) for q in asked))
            self.log_epoch_mean({"val/accuracy": exact_match(asked, done)}, len(asked))

    def charts(self) -> dict[str, list[str]]:
        """Loss, and what comes of it."""
        return {"loss": ["train/loss", "val/loss"], "right answers": ["val/accuracy"]}


def exact_match(asked: list[PromptExample], done: list[list[int]]) -> Tensor:
    """Share of answers that are those of the data."""
    right = [written[: len(q.answer)] == q.answer for q, written in zip(asked, done, strict=True)]
    return torch.tensor(right).float().mean()


class ReferenceFineTuned(FineTuned):
    """A stage that compares the policy with what it was: it trains without dropout, as ratios of noise say nothing.

    Where the setting `beta` is not zero, the policy as it was at the start is needed. With adapters it is the policy
    without them; else a frozen copy, which checkpoints hold too.

    Args:
        spec: what the data looks like.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.reference: Any = None
        if self.hparams["beta"] and not self.hparams["rank"]:
            self.reference = copy.deepcopy(self.policy).requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> "ReferenceFineTuned":
        """Everything but the policy and its reference."""
        super().train(mode)
        self.policy.eval()
        for module in self.policy.modules():
            if isinstance(module, nn.RNNBase):
                module.train(mode)  # or cuDNN refuses to go backward; dropout of its own it has none
        if self.reference is not None:
            self.reference.eval()
        return self

    def load_pretrained(self, weights: Mapping[str, Tensor]) -> None:
        """The policy's weights are the reference's too."""
        super().load_pretrained(weights)
        if self.reference is not None:
            self.reference.load_state_dict(dict(weights))

    @torch.no_grad()
    def reference_nats(self, batch: Batch) -> Tensor:
        """Cost of every target token (B, T) under the policy as it was."""
        if self.reference is not None:
            return cast(Tensor, self.reference.token_nll(batch)[0])
        with without_adapters(self.policy.net):
            return self.policy.token_nll(batch)[0]

    def modules_to_compile(self) -> list[torch.nn.Module]:
        """The networks of both."""
        return super().modules_to_compile() + ([] if self.reference is None else self.reference.modules_to_compile())
