"""Base class of stages that learn from rewards of the answers that they write."""

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from zoo.core.errors import ConfigError
from zoo.core.signature import Component
from zoo.core.spaces import Preference
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.finetuning.base import ReferenceFineTuned, exact_match
from zoo.models.finetuning.reward_model import RewardModel
from zoo.models.finetuning.rewards import reward as named_reward
from zoo.nn.samplers.rollout import PromptExample, collate_examples
from zoo.nn.samplers.sampling_params import SamplingParams

TrainedReward = Annotated[str | dict[str, Any] | None, Component("model", pretrained=True)]


class RewardedFineTuned(ReferenceFineTuned):
    """A stage whose rewards come from a registered function, or from a trained reward model.

    Its settings include `reward`, `reward_model`, `num_iterations`, `max_new_tokens` and `clip`.

    Args:
        spec: what the data looks like.

    Raises:
        ConfigError: `reward_model` is not a reward model.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.automatic_optimization = False  # several steps per batch
        self.reward = named_reward(self.hparams["reward"], "model.reward")
        self.reward_model: RewardModel | None = None
        if self.hparams["reward_model"] is not None:
            chosen = self.hparams["reward_model"]
            name = chosen if isinstance(chosen, str) else chosen["name"]
            if name != RewardModel.registered_name:
                raise ConfigError(f"model.reward_model={name}: not a reward model. Give a run of model=reward_model.")
            pairs = DataSpec(Preference(spec.tokens), name=spec.name)
            model: RewardModel = self.build_component("reward_model", "model", pairs)
            self.reward_model = model.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "RewardedFineTuned":
        """Set the mode; the reward model stays in evaluation mode."""
        super().train(mode)
        judge = getattr(self, "reward_model", None)  # not yet there in the constructor of the base class
        if judge is not None:
            judge.eval()
        return self

    def reward_of(self, prompt: list[int], completion: list[int], answer: list[int]) -> float:
        """Reward of one answer by the function."""
        return float(self.reward(self.decode_text(prompt), self.decode_text(completion), self.decode_text(answer)))

    @torch.no_grad()
    def score(self, asked: Sequence[PromptExample], done: Sequence[list[int]]) -> Tensor:
        """Rewards (N,) of answers, on the CPU.

        For the reward model, answers that were cut get an end, after which the reward is read.
        """
        if self.reward_model is None:
            return torch.tensor([self.reward_of(q.prompt, new, q.answer) for q, new in zip(asked, done, strict=True)])
        whole = [
            [*new, self.end] if new[-1] not in self.ends and len(q.prompt) + len(new) <= self.spec.size else new
            for q, new in zip(asked, done, strict=True)
        ]
        x, y = collate_examples([q.prompt for q in asked], whole, self.end)
        return self.reward_model.rewards(Batch(x.to(self.device), y.to(self.device))).cpu()

    def decode_text(self, tokens: list[int]) -> str:
        """Tokens as text, without end tokens; token ids for data without a tokenizer."""
        if self.tokenizer is not None:
            return str(self.tokenizer.decode(tokens))
        return " ".join(str(token) for token in tokens if token != self.end)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip after gradient unscaling."""
        if self.hparams["clip"]:
            self.clip_gradients(optimizer, self.hparams["clip"], "norm")

    def optimizer_steps(self, batches: int) -> int:
        """`num_iterations` per batch."""
        return batches * self.hparams["num_iterations"]

    def optimizer_steps_to_batches(self, steps: int) -> int:
        """Inverse of `optimizer_steps`."""
        return steps // self.hparams["num_iterations"]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log rewards and accuracy of greedy answers."""
        asked = self.prompts(batch.x, batch.y, batch_idx)
        if asked:
            done = self.answers(asked, SamplingParams(temperature=0), self.hparams["max_new_tokens"])
            mean = self.score(asked, done).mean()
            means = {"val/loss": -mean, "val/reward": mean, "val/accuracy": exact_match(asked, done, self.ends)}
            self.log_epoch_mean(means, len(asked))

    def charts(self) -> dict[str, list[str]]:
        """Rewards and accuracy."""
        return {
            "reward": ["train/reward", "val/reward"],
            "accuracy": ["val/accuracy"],
            "tokens in an answer": ["train/answer_tokens"],
        }
