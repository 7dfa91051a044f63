"""What comes after supervised fine-tuning: learning from preferences, and from rewards for what a policy writes."""

from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import Count, NonNegative, Positive
from zoo.core.spaces import Preference
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.finetuning.base import Policy, ReferenceFineTuned
from zoo.nn.losses.policy_gradient import masked_mean
from zoo.nn.losses.preference import dpo_loss
from zoo.nn.optim.components import Optimizer


@register("model", "dpo")
class DPO(ReferenceFineTuned):
    """Direct preference optimisation: the better answer of two becomes likelier than it was, the worse one less likely.

    `loss` is -log sigmoid(reward of the chosen answer - that of the rejected one), where a reward is beta times how
    many nats likelier an answer is than it was before this stage; ln 2 at the start.

    Alone it is content where both answers become less likely, the rejected one the more so. `imitate` adds the cost of
    the chosen answer, as nats per token (Pang et al. 2024, 2404.19733, eq. 1), which keeps it likely.

    Args:
        spec: what the data looks like.
        policy: the model to tune; `init_from=RUN` brings it.
        beta: nats of reward per nat of log-probability: small values let the policy go far.
        imitate: weight of the chosen answer's nats per token; 0 is DPO as it was published.
        rank: of the adapters of linear layers, and nothing else is trained; 0 trains all weights.
        alpha: adapters are scaled by alpha / rank.
        optimizer: what moves the weights, with its learning rate and schedule.
        checked: held-out prompts that are answered at each validation; the chosen answer is the right one.
    """

    accepts = (Preference,)
    paper = "Rafailov et al. 2023, 2305.18290"

    def __init__(
        self,
        spec: DataSpec,
        *,
        policy: Policy = "language_model",
        beta: Positive = 0.1,
        imitate: NonNegative = 0.0,
        rank: Count = 0,
        alpha: Positive = 16.0,
        optimizer: Optimizer = "adamw",
        checked: Count = 256,
    ) -> None:
        super().__init__(spec)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The loss, how often the chosen answer has the greater reward, and rewards in nats."""
        answers = Batch(batch.x.flatten(0, 1), batch.y.flatten(0, 1))  # (2 B, T)
        nats = self.token_nll(answers)[0]
        policy = -nats.sum(1).view(-1, 2)
        reference = -self.reference_nats(answers).sum(1).view(-1, 2)
        loss, rewards = dpo_loss(policy, reference, self.hparams["beta"])
        chosen, rejected = rewards.unbind(1)
        cost = masked_mean(nats[::2], answers.y[::2] >= 0)
        return {
            "loss": loss.mean() + self.hparams["imitate"] * cost,
            "preference_loss": loss.detach().mean(),
            "chosen_nats": cost.detach(),
            "reward_accuracy": (chosen > rejected).float().mean(),
            "reward_margin": (chosen - rejected).mean(),
            "reward_chosen": chosen.mean(),
            "reward_rejected": rejected.mean(),
        }

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The same on held-out pairs, and how many chosen answers are given."""
        self.log_epoch_mean({f"val/{k}": v for k, v in self.loss(batch).items()}, len(batch))
        self.log_accuracy(batch.x[:, 0], batch.y[:, 0], batch_idx)

    def charts(self) -> dict[str, list[str]]:
        """Loss, rewards and right answers."""
        rewards = ["train/reward_chosen", "train/reward_rejected"]
        return super().charts() | {"rewards": rewards, "chosen preferred": ["val/reward_accuracy"]}
