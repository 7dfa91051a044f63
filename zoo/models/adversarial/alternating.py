"""Base class of GANs from noise to data: when each player steps, and on how many batches."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.implicit import ImplicitModel
from zoo.nn.networks.gan_heads import Discriminator, Generator, frozen_params
from zoo.nn.optim.ema import EMA


class AlternatingGame(ImplicitModel):
    """Two players that step in turn.

    The discriminator steps every `accumulate` batches. The generator steps at every `n_critic`-th of these, with the
    updated discriminator. A subclass has these settings, `clip` and `discriminator_lr`; it sets the networks below, and
    writes `discriminator_terms` and `generator_terms`.

    Args:
        spec: what the data looks like.
    """

    generator: Generator
    discriminator: Discriminator
    generator_ema: EMA
    discriminator_terms: Callable[[Batch], dict[str, Tensor]]  # with the discriminator's loss, "loss_d"
    generator_terms: Callable[[Batch], dict[str, Tensor]]  # with the generator's loss, "loss_g"

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.automatic_optimization = False  # two players, two optimizers
        self.accumulated: list[Batch] = []  # batches since the last discriminator step

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Both players' terms on one batch."""
        return {**self.discriminator_terms(batch), **self.generator_terms(batch)}

    @property
    def discriminator_steps(self) -> int:
        """Steps of the discriminator with the one of this batch; the same for all batches of one step."""
        return self.step // int(self.hparams["accumulate"]) + 1

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Accumulate a batch, and step the discriminator and the generator when due."""
        opt_g, opt_d = cast(list[Any], self.optimizers())
        accumulate, n_critic = self.hparams["accumulate"], self.hparams["n_critic"]
        step, rest = divmod(self.step + 1, accumulate)
        self.accumulated.append(batch)
        terms = self.discriminator_terms(batch)
        self.manual_backward(terms["loss_d"] / accumulate)
        if not rest:
            self.step_optimizer(opt_d)
            if step % n_critic == 0:
                with frozen_params(self.discriminator):
                    for small in self.accumulated:
                        terms |= self.generator_terms(small)
                        self.manual_backward(terms["loss_g"] / accumulate)
                self.step_optimizer(opt_g)
                self.generator_ema.update(self.generator, n_critic * accumulate * len(batch) * self.trainer.world_size)
            self.accumulated.clear()
        self.log_terms(terms)

    def reference_step(
        self, batch: Batch, number: int, autocast: Callable[[], Any], *optimizers: tuple[torch.optim.Optimizer, Any]
    ) -> None:
        """Train on batch `number` without Lightning or accumulation, as the baseline of `zoo bench`."""
        networks, terms = (self.generator, self.discriminator), (self.generator_terms, self.discriminator_terms)
        for which, name in ((1, "loss_d"), (0, "loss_g")):
            if name == "loss_g" and number % self.hparams["n_critic"]:
                return
            self.discriminator.requires_grad_(name == "loss_d")
            with autocast():
                loss = terms[which](batch)[name]
            loss.backward()
            self.discriminator.requires_grad_(True)
            optimizer, schedule = optimizers[which]
            if self.hparams["clip"]:
                nn.utils.clip_grad_norm_(networks[which].parameters(), self.hparams["clip"])
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        self.generator_ema.update(self.generator, self.hparams["n_critic"] * len(batch))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip after gradient unscaling."""
        if self.hparams["clip"]:
            self.clip_gradients(optimizer, self.hparams["clip"], "norm")

    def configure_optimizers(self) -> Any:
        """One optimizer per player: generator, discriminator."""
        h, often = self.hparams, self.hparams["accumulate"]
        return (
            self.build_optimizer(self.generator.parameters(), batches_per_step=often * h["n_critic"]),
            self.build_optimizer(self.discriminator.parameters(), lr=h["discriminator_lr"], batches_per_step=often),
        )

    def hidden_layers(self) -> list[nn.Module]:
        """Networks of both players, without label embeddings."""
        return [self.generator.network, self.discriminator.network]

    def optimizer_steps(self, batches: int) -> int:
        """Discriminator steps plus generator steps, as Lightning counts them."""
        steps = batches // self.hparams["accumulate"]
        return steps + steps // self.hparams["n_critic"]

    def optimizer_steps_to_batches(self, steps: int) -> int:
        """Smallest number of batches that gives so many steps of both players."""
        n_critic = self.hparams["n_critic"]
        rounds, rest = divmod(steps, n_critic + 1)
        return (rounds * n_critic + rest) * self.hparams["accumulate"]

    def modules_to_compile(self) -> list[nn.Module]:
        """The players, but not the averaged generator: every new batch size would recompile it."""
        return [self.generator, self.discriminator]

    def modules_to_average(self) -> dict[str, nn.Module]:
        """None: the setting `ema_halflife_images` averages the generator."""
        return {}
