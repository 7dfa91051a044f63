"""Fine-tuning: a language model that was trained before, the policy, and what it is trained on with now.

A stage is a model that holds the policy as a part: `model=sft init_from=RUN` takes the policy's name, settings, weights
and tokenizer from RUN. What it learned goes on in the same way: `model=dpo init_from=TUNED_RUN`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, cast

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.models.base import Attends, Batch, Exports, Schedule
from zoo.models.text import TextModel
from zoo.nn.core import Core
from zoo.nn.decoding import Sampling
from zoo.nn.lora import adapt, adapters, merge
from zoo.nn.optim import decayed_groups
from zoo.nn.prompted import Question, complete, questions
from zoo.registry import Part, register
from zoo.spec import Count, DataSpec, NonNegative, Positive

Policy = Annotated[str | dict[str, Any], Part("model")]


class Tuned(TextModel):
    """A stage of training over a policy; a subclass writes `loss` and names its settings.

    All have `policy`, and `rank` and `alpha` (see `zoo.nn.lora`; rank 0 trains all weights), `lr`, `weight_decay`,
    `schedule` and `warmup` of AdamW, and `checked`: so many held-out prompts are answered greedily at each validation,
    and `val/accuracy` is the share of answers that are those of the data, token for token.

    Args:
        spec: what the data looks like.

    Raises:
        ZooError: the policy is no model that writes text, or has nothing to train.
    """

    family = "fine-tuning"
    policy: TextModel

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.policy = self.part("policy", "model", replace(spec, kind="tokens"))
        name = self.policy.registered_name
        if isinstance(self.policy, Tuned):
            raise ZooError(f"model.policy={name} is a stage of training: take a model for it, and init_from=ITS_RUN.")
        if not isinstance(self.policy, TextModel) or not hasattr(self.policy.net, "prefill"):
            raise ZooError(f"model.policy={name} writes no text from left to right: take one that does, such as gpt.")
        if not any(p.requires_grad for p in self.policy.parameters()):
            raise ZooError(f"model.policy={name} has no weights to train: take one that has, such as gpt.")
        if rank := self.hparams["rank"]:
            adapt(self.policy.net, rank, self.hparams["alpha"], but=getattr(self.policy.net, "head", None))

    # -- the policy, which does all the work -----------------------------------------------------------------

    @property
    def net(self) -> Any:
        """The policy's network."""
        return self.policy.net

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Of every target token (B, T, V), and the targets (B, T), negative where they are not scored."""
        return self.policy.logits(batch)

    def attention(self, batch: Batch) -> dict[str, Tensor]:
        """Who looks at whom in the policy's network, if it can tell."""
        return self.policy.attention(batch) if isinstance(self.policy, Attends) else {}

    def nats(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cost of every target token (B, T) in nats, zero where it is not scored; and the targets."""
        return self.policy.nats(batch)

    def guesses(self, batch: Batch) -> Tensor:
        """Is the likeliest token the right one, for every one that is scored? (N,)"""
        return self.policy.guesses(batch)

    def sampling(self, options: dict[str, Any]) -> Sampling:
        """The policy's choice of tokens."""
        return self.policy.sampling(options)

    def core(self) -> Core:
        """The policy's."""
        if not isinstance(self.policy, Exports):
            raise ZooError(f"model.policy={self.policy.registered_name} has no core to export.")
        return self.policy.core()

    def compilable(self) -> list[torch.nn.Module]:
        """The policy's network."""
        return self.policy.compilable()

    # -- from one stage to the next --------------------------------------------------------------------------

    def origin_state(self) -> dict[str, Tensor]:
        """Those weights of the policy that it has without adapters, by the policy's own names."""
        extra = {f"net.{name}" for name in adapters(self.policy.net)}
        return {name: weight for name, weight in self.policy.state_dict().items() if name not in extra}

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Give the policy the weights that it had at the end of another training."""
        self.policy.load_state_dict(dict(weights), strict=False)  # adapters begin anew

    def merged(self) -> TextModel:
        """The policy as a model of its own, adapters added to the matrices that they correct; this model is used up."""
        merge(self.policy.net)
        return self.policy.requires_grad_(True)

    # -- training --------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """AdamW of what is trained; matrices only decay."""
        h = self.hparams
        trained = [p for p in self.policy.parameters() if p.requires_grad]
        groups = decayed_groups(trained, h["weight_decay"])
        optimizer = torch.optim.AdamW(groups, lr=h["lr"], betas=(0.9, 0.95), fused=self.fused)
        return self.scheduled(optimizer, h["schedule"], h["warmup"])

    # -- answers to held-out prompts -------------------------------------------------------------------------

    def asked(self, x: Tensor, y: Tensor, batch_idx: int) -> list[Question]:
        """The prompts of a validation batch that are among the first `checked` of the split."""
        left = max(self.hparams["checked"] - batch_idx * len(x), 0)
        return questions(x[:left], y[:left], self.begin, self.end)

    def written(self, asked: list[Question], how: Sampling, limit: int | None = None) -> list[list[int]]:
        """What the policy answers: at most so many tokens, and as many as a row of the data has room for.

        Raises:
            ZooError: a prompt leaves no room.
        """
        prompts = [q.prompt for q in asked]
        room = self.spec.dim + 1 - max(map(len, prompts))
        if room < 1:
            raise ZooError(f"a prompt fills the context of {self.spec.dim}: give a longer one (data.context).")
        return complete(self.net, prompts, how, self.end, min(limit or room, room), device=self.device)

    def log_accuracy(self, x: Tensor, y: Tensor, batch_idx: int) -> None:
        """Log which share of prompts is answered as the data do."""
        asked = [q for q in self.asked(x, y, batch_idx) if q.prompt != [self.begin]]  # there is something to answer
        if asked:
            done = self.written(asked, Sampling(temperature=0), max(len(q.answer) for q in asked))
            self.log_means({"val/accuracy": matches(asked, done)}, len(asked))

    def dashboard(self) -> dict[str, list[str]]:
        """Loss, and what comes of it."""
        return {"loss": ["train/loss", "val/loss"], "right answers": ["val/accuracy"]}


def matches(asked: list[Question], done: list[list[int]]) -> Tensor:
    """Share of answers that are those of the data."""
    right = [written[: len(q.answer)] == q.answer for q, written in zip(asked, done, strict=True)]
    return torch.tensor(right).float().mean()


@register("model", "sft")
class SFT(Tuned):
    """Supervised fine-tuning: the policy learns the answers of the data, and not the prompts before them.

    `loss` is nats per scored token. However a batch is divided over accumulated parts and over processes, every token
    of it counts the same.

    Args:
        spec: what the data looks like.
        policy: the model to tune; `init_from=RUN` brings it.
        rank: of the adapters of linear layers, and nothing else is trained; 0 trains all weights.
        alpha: adapters are scaled by alpha / rank.
        lr: of AdamW.
        weight_decay: decoupled, of all matrices that are trained.
        schedule: of the learning rate.
        warmup: batches of linear warm-up.
        checked: held-out prompts that are answered at each validation, for `val/accuracy`.
    """

    paper = "Wei et al. 2021 (FLAN, arXiv:2109.01652); Hu et al. 2021 (LoRA, arXiv:2106.09685)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        policy: Policy = "gpt",
        rank: Count = 0,
        alpha: Positive = 16.0,
        lr: Positive = 1e-3,
        weight_decay: NonNegative = 0.0,
        schedule: Schedule = "linear",
        warmup: Count = 10,
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
        own = (batch[1] >= 0).sum().float()
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
        self.log_accuracy(*batch, batch_idx)

    def dashboard(self) -> dict[str, list[str]]:
        """Loss, bits per byte, and right answers."""
        return TextModel.dashboard(self) | super().dashboard()
