"""CTGAN: conditional generative adversarial network of rows of mixed columns."""

import torch
from torch import Tensor, nn

from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import NonNegative, Positive, PositiveInt
from zoo.core.spaces import Table
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule
from zoo.data.batch import Batch
from zoo.data.table.cells import given_rows
from zoo.data.table.constraints import constrained
from zoo.data.table.training_by_sampling import TrainingBySampling
from zoo.models.adversarial.alternating import AlternatingGame
from zoo.nn.blocks.mode_codec import ModeCodec
from zoo.nn.blocks.table_codec import TableCodec
from zoo.nn.distributions.mixtures import categorical_from_uniform
from zoo.nn.losses.gan import gradient_penalty, wasserstein_d, wasserstein_g
from zoo.nn.networks.components import Decoder, Encoder
from zoo.nn.networks.gan_heads import Discriminator, Generator
from zoo.nn.optim.components import Optimizer
from zoo.nn.optim.ema import EMA
from zoo.nn.samplers.noise import fork, normal

TRIES = 100  # rows drawn for each row with given cells


@register("model", "ctgan")
class CTGAN(AlternatingGame):
    """Conditional GAN of tables: mode-specific numbers, Gumbel-softmax categories, training by sampling.

    Both players see a condition: one place of one choice, which is a category or whether a number is missing. Training
    draws it by the logarithm of its frequency, with a real row that has it. A cross-entropy makes the generator obey.
    Samples draw it by its frequency in the training data. The critic judges `pack` rows at once (PacGAN, Lin et al.
    2017, arXiv:1712.04086), and its gradient is penalised (arXiv:1704.00028). A missing number has neither a mode nor a
    value, for both players.

    Args:
        spec: of the table.
        noise_dim: size of the noise.
        n_modes: most modes of each number.
        temperature: of the Gumbel-softmax; at 0 it would be a draw.
        pack: rows that the critic judges at once; batches are filled up to a multiple.
        condition_weight: of the cross-entropy.
        gp_weight: of the penalty E (||dD/dx|| - 1)^2 between packs of real and fake rows.
        n_critic: critic steps for each generator step.
        ema_halflife_images: half-life of the averaged generator in rows; 0 turns averaging off.
        optimizer: of each player, with its learning rate and schedule.
        discriminator_lr: learning rate of the critic; None is that of `optimizer`.
        clip: largest gradient norm of each player; 0 turns clipping off.
        accumulate: batches per optimizer step.
        feature_dim: width of the layer before the critic's logit.
        generator: network of noise and condition -> logits of all choices and modes, and values.
        discriminator: network of packed rows and conditions -> features.
    """

    accepts = (Table,)
    paper = "Xu, Skoularidou, Cuesta-Infante & Veeramachaneni 2019 (arXiv:1907.00503)"
    shares: Tensor  # (C,) of the conditions in samples

    def __init__(
        self,
        spec: DataSpec,
        *,
        noise_dim: PositiveInt = 128,
        n_modes: PositiveInt = 10,
        temperature: Positive = 0.2,
        pack: PositiveInt = 8,
        condition_weight: NonNegative = 1.0,
        gp_weight: NonNegative = 10.0,
        n_critic: PositiveInt = 1,
        ema_halflife_images: NonNegative = 10_000.0,
        optimizer: Optimizer = "adam",
        discriminator_lr: Positive | None = None,
        clip: NonNegative = 0.0,
        accumulate: PositiveInt = 1,
        feature_dim: PositiveInt = 256,
        generator: Decoder = "mlp",
        discriminator: Encoder = "mlp",
    ) -> None:
        super().__init__(spec)
        assert isinstance(spec.x, Table)
        self.codec = TableCodec(spec.x)
        self.modes = ModeCodec(self.codec, n_modes)
        self.noise_dim, self.pack, self.n_conditions = noise_dim, pack, self.modes.n_chosen
        self.latent_dim = noise_dim + 1 + self.modes.n_places  # noise, condition, draws of choices and modes
        width = self.modes.width
        decoder = self.build_component("generator", "decoder", noise_dim + self.n_conditions, (width,))
        self.generator = Generator(decoder, noise_dim, 0, bounded=False)
        judged = pack * (width + self.n_conditions)
        encoder = self.build_component("discriminator", "encoder", (judged,), feature_dim)
        self.discriminator = Discriminator(encoder, feature_dim, 0)
        self.generator_ema = EMA(self.generator, ema_halflife_images)
        self.register_buffer("shares", torch.ones(self.n_conditions))
        self.table: TrainingBySampling | None = None  # of the training data, in training

    def fit_to_data(self, data: DataModule) -> None:
        """Fit the modes and the frequencies of the conditions, and prepare training by sampling."""
        super().fit_to_data(data)
        self.table = self.sampling(data.train[0])
        if not self.modes.fitted:
            self.modes.fit(data.train[0])
            self.shares.copy_(self.table.counts)

    def sampling(self, x: Tensor) -> TrainingBySampling:
        """Draws of rows (N, F)."""
        return TrainingBySampling(x, self.modes.chosen_at, self.modes.choices)

    def table_of(self, x: Tensor) -> TrainingBySampling:
        """Draws of the training data; of the batch (B, F) outside training."""
        if self.table is None:
            return self.sampling(x)
        return self.table if self.table.x.device == x.device else self.table.to(x.device)

    # -- the objective -----------------------------------------------------------------------------------------------

    def rows_of(self, batch: Batch) -> int:
        """Rows in a step: those of a batch, filled up to whole packs."""
        return -(-len(batch) // self.pack) * self.pack

    def condition(self, places: Tensor) -> Tensor:
        """Places (B,) -> one-hot conditions (B, C)."""
        return (places[:, None] == torch.arange(self.n_conditions, device=places.device)).float()

    def raw(self, network: nn.Module, z: Tensor, condition: Tensor) -> Tensor:
        """Outputs of a generator (B, W) from noise (B, Z) and conditions (B, C)."""
        raw: Tensor = network(torch.cat([z, condition], 1), z.new_zeros(z.shape[0], dtype=torch.int64))
        return raw.float()

    def fake(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs of the generator for conditions (B, C), and the soft wide rows that are drawn from them, (B, W)."""
        raw = self.raw(self.generator, torch.randn(len(condition), self.noise_dim, device=condition.device), condition)
        u = torch.rand(len(raw), self.modes.n_places, device=raw.device)
        return raw, self.modes.soften(raw, u, self.hparams["temperature"])

    def packed(self, wide: Tensor, condition: Tensor) -> Tensor:
        """Wide rows (B, W) and conditions (B, C) -> packs of both (B / pack, pack * (W + C))."""
        return torch.cat([wide, condition], 1).unflatten(0, (-1, self.pack)).flatten(1)

    def critic(self, packed: Tensor) -> Tensor:
        """Packs (P, ...) -> logits (P,); not the compiled network, see `input_gradient`."""
        return self.discriminator.forward(packed, packed.new_zeros(len(packed), dtype=torch.int64))

    def condition_nats(self, raw: Tensor, places: Tensor) -> Tensor:
        """Cross-entropy of each condition, a place (B,), with the generator's logits of its choice, nats (B,)."""
        logits = self.modes.logits(raw)
        if not self.n_conditions:
            return logits.new_zeros(len(raw))
        logits = torch.cat([logits[:, choice].log_softmax(1) for choice in self.modes.choices], 1)
        return -logits.gather(1, places[:, None])[:, 0]

    def discriminator_terms(self, batch: Batch) -> dict[str, Tensor]:
        """Loss of the critic, "loss_d", with its penalty and statistics."""
        with torch.no_grad():  # the generator is fixed in this step
            x, places = self.table_of(batch.x).draw(self.rows_of(batch))
            condition = self.condition(places)
            modes = torch.rand(len(x), self.modes.n_numbers, device=x.device)
            real = self.packed(self.modes.encode(x, modes), condition)
            fake = self.packed(self.fake(condition)[1], condition)
        y = places[: len(real)]  # not used
        real_logits, fake_logits = self.discriminator(real, y), self.discriminator(fake, y)
        penalty = self.hparams["gp_weight"] * gradient_penalty(self.critic, real, fake)
        return {
            "loss_d": wasserstein_d(real_logits, fake_logits) + penalty,
            "gp": penalty.detach(),
            "logit_real": real_logits.detach().mean(),
            "logit_fake": fake_logits.detach().mean(),
        }

    def generator_terms(self, batch: Batch) -> dict[str, Tensor]:
        """Loss of the generator, "loss_g", with the cross-entropy of the conditions."""
        places = self.table_of(batch.x).draw_places(self.rows_of(batch))
        condition = self.condition(places)
        raw, wide = self.fake(condition)
        logits = self.discriminator(self.packed(wide, condition), places[: len(wide) // self.pack])
        nats = self.condition_nats(raw, places).mean()
        loss = wasserstein_g(logits, logits) + self.hparams["condition_weight"] * nats
        return {"loss_g": loss, "condition_nats": nats.detach()}

    def discriminator_saturates(self) -> bool:
        """Never: the slope of the critic's loss is the same everywhere."""
        return False

    # -- samples -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def decode(self, z: Tensor, y: Tensor, ema: bool = True, places: Tensor | None = None) -> Tensor:
        """Noise (B, latent_dim) -> rows (B, F); labels are not used.

        The noise is that of the network, of the condition, and of the draws of all choices and modes.

        Args:
            z: standard normal numbers.
            y: not used.
            ema: use the averaged generator instead of the current one.
            places: conditions (B,), in place of drawn ones.
        """
        noise, u = z[:, : self.noise_dim], 0.5 + 0.5 * torch.erf(z[:, self.noise_dim :] / 2**0.5)
        if places is None:
            places = categorical_from_uniform(self.shares, u[:, 0]) if self.n_conditions else u[:, 0].long()
        network, mode = self.generator_ema if ema else self.generator, self.generator.training
        try:
            self.generator.eval()  # or batch normalisation would mix samples
            raw = self.raw(network, noise, self.condition(places))
        finally:
            self.generator.train(mode)
        return self.modes.decode(self.modes.soften(raw, u[:, 1:], self.hparams["temperature"]))

    def generator_for_samples(self) -> nn.Module:
        """The averaged generator, and the codec."""
        return nn.ModuleList([self.generator_ema, self.modes])

    @constrained
    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        ema: bool = True,
        where: str = "",
    ) -> Tensor:
        """Draw n rows, (n, F).

        Args:
            n: number of rows.
            condition: none: there are no class labels.
            generator: source of randomness.
            ema: use the averaged generator instead of the current one.
            where: categories to keep, such as "sex=male". The generator is conditioned on one of them, the rarest, and
                rows without all of them are drawn again.

        Raises:
            DataError: a number is given, or the generator makes no such rows.
        """
        y = self.resolve_labels(n, condition, generator)
        if not where:
            return self.decode(self.randn(n, self.latent_dim, generator=generator), y, ema)
        row, wanted = self.wanted(where)
        found = torch.zeros(n, self.spec.size, device=self.device)
        left = torch.arange(n, device=self.device)
        rarest = wanted[self.shares[wanted].argmin()]
        for number in range(TRIES):
            z = normal(n, self.latent_dim, generator=fork(generator, f"try {number}")).to(self.device)[left]
            x = self.decode(z, y[left], ema, rarest.expand(len(left)))
            fits = (x[:, self.modes.chosen_at[wanted]] == row[self.modes.chosen_at[wanted]]).all(1)
            found[left[fits]] = x[fits]
            left = left[~fits]
            if not len(left):
                torch.rand(1, generator=generator)  # the next call draws other numbers
                return found
        raise DataError(
            f"where={where}: {len(left)} of {n} rows did not have these cells in {TRIES} tries. Give fewer cells, or "
            f"choose model=table_autoregressive."
        )

    def wanted(self, where: str) -> tuple[Tensor, Tensor]:
        """An encoded row (F,) with the given cells, and their places among the conditions.

        Raises:
            DataError: a cell that does not exist, or a number.
        """
        rows, hidden = given_rows(self.codec, where, 1)
        row, hidden = rows[0].to(self.device), hidden[0].to(self.device)
        for block in self.codec.score_blocks:
            gone = block.gate >= 0 and bool(row[block.gate] == 1)
            if not hidden[block.start] and not gone:
                name = self.codec.columns[block.column].name
                raise DataError(
                    f"where={where}: {name} is a number, and ctgan keeps categories and missing values. Give another "
                    f"column, or choose model=table_autoregressive."
                )
        at = self.modes.chosen_at
        return row, ((row[at] == 1) & ~hidden[at]).nonzero()[:, 0]

    def charts(self) -> dict[str, list[str]]:
        """Both players on one chart, the condition, and the validation metrics."""
        return {
            "players": ["train/loss_d", "train/loss_g"],
            "logits": ["train/logit_real", "train/logit_fake"],
            "penalty gp": ["train/gp"],
            "cross-entropy of conditions": ["train/condition_nats"],
            **super().charts(),
        }
