"""Base class of models whose two players both step at every batch."""

from typing import Any, cast

from torch import nn

from zoo.data.batch import Batch
from zoo.models.base import Model
from zoo.nn.networks.gan_heads import frozen_params


class TwoPlayers(Model):
    """Adversarial training: the generating player steps, then the discriminator on the same generated samples.

    A subclass sets `automatic_optimization = False`, and writes `players`, `generator_terms` and `discriminator_terms`.
    """

    def players(self) -> tuple[nn.Module, nn.Module]:
        """Networks of the generating player, and of the discriminating one."""
        raise NotImplementedError

    def generator_terms(self, batch: Batch) -> tuple[dict[str, Any], Any]:
        """Terms with the generating player's loss, "loss_g"; and what it generated, without a gradient."""
        raise NotImplementedError

    def discriminator_terms(self, batch: Batch, generated: Any) -> dict[str, Any]:
        """Terms with the discriminator's loss, "loss_d", on a batch and what `generator_terms` generated."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> dict[str, Any]:
        """Both players' terms on one batch."""
        terms, generated = self.generator_terms(batch)
        return terms | self.discriminator_terms(batch, generated)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Step both players, one after the other."""
        opt_g, opt_d = cast(list[Any], self.optimizers())
        with frozen_params(self.players()[1]):
            terms, generated = self.generator_terms(batch)
            self.manual_backward(terms["loss_g"])
        self.step_optimizer(opt_g)
        terms |= self.discriminator_terms(batch, generated)
        self.manual_backward(terms["loss_d"])
        self.step_optimizer(opt_d)
        self.log_terms(terms)

    def configure_optimizers(self) -> Any:
        """One optimizer per player; the first trains all weights that are not the discriminator's."""
        judged = list(self.players()[1].parameters())
        known = {id(p) for p in judged}
        return self.build_optimizer([p for p in self.parameters() if id(p) not in known]), self.build_optimizer(judged)

    def hidden_layers(self) -> list[nn.Module]:
        """Networks of both players."""
        return list(self.players())

    def modules_to_compile(self) -> list[nn.Module]:
        """Networks of both players."""
        return list(self.players())

    def optimizer_steps(self, batches: int) -> int:
        """Steps of both players, as Lightning counts them."""
        return 2 * batches

    def optimizer_steps_to_batches(self, steps: int) -> int:
        """Inverse of `optimizer_steps`."""
        return steps // 2
