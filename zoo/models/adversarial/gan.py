"""Generative adversarial networks: one class for every pair of loss and penalty."""

from typing import Annotated, Any, cast

import torch
from annotated_types import Interval
from torch import Tensor, nn

from zoo.core.errors import ConfigError
from zoo.core.registry import peek, register
from zoo.core.signature import Component, Count, Fraction, NonNegative, Positive, PositiveInt
from zoo.core.spaces import Image
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.adversarial.alternating import AlternatingGame
from zoo.models.adversarial.unrolled import look_ahead
from zoo.nn.augmentations.gan import Augmentation
from zoo.nn.distributions.normal import truncate
from zoo.nn.losses.gan import GAN_LOSSES, LossName, gradient_penalty, r1_penalty
from zoo.nn.losses.gan_terms import consistency, orthogonal_penalty, path_lengths
from zoo.nn.networks.components import Decoder, Encoder
from zoo.nn.networks.gan_auxiliary import Auxiliary
from zoo.nn.networks.gan_heads import Discriminator, Generator
from zoo.nn.optim.components import Optimizer
from zoo.nn.optim.ema import EMA

PATH_DECAY = 0.99  # of the running mean of path lengths
Share = Annotated[float, Interval(gt=0.0, le=1.0)]


@register("model", "gan")
class GAN(AlternatingGame):
    """Generative adversarial network: any loss, penalty and network, with an averaged generator.

    The discriminator steps every `accumulate` batches. The generator steps at every `n_critic`-th of these, with fresh
    noise and the updated discriminator. `accumulate` small batches give the gradients of a large one, penalties
    included; batch normalisation differs. Checkpoints do not contain accumulated gradients.

    Args:
        spec: what the data looks like.
        latent_dim: size of the noise.
        loss: objective of both players; see `zoo.nn.losses.gan`.
        r1_gamma: weight gamma of the gradient penalty gamma/2 E ||dD/dx||^2 at real samples.
        r2_gamma: the same at fake samples.
        gp_weight: weight of the penalty E (||dD/dx|| - 1)^2 between real and fake samples.
        lazy_reg_interval: discriminator steps from one penalty to the next; it multiplies their weight
            (lazy regularisation, arXiv:1912.04958).
        consistency_weight: of the squared change of logits where real samples change (Zhang et al. 2019, CR-GAN,
            arXiv:1910.12027).
        consistency_fake_weight: the same of fake samples (Zhao et al. 2020, bCR-GAN, arXiv:2002.04724).
        consistency_augmentation: the change.
        orthogonal_weight: of the inner products of different filters of the generator, which truncated noise needs
            (Brock et al. 2018, arXiv:1809.11096, equation 3).
        path_length_weight: of the squared distance of path lengths from their mean (Karras et al. 2019, StyleGAN2,
            arXiv:1912.04958, equation 4): images then move equally far with equal steps of latents.
        path_length_interval: generator steps from one such penalty to the next; it multiplies its weight.
        style_mixing: of a generator with styles: share of the training samples with a second style from a random layer
            on. It is 0.9 in the paper (Karras et al. 2018, arXiv:1812.04948, section 3.1). Path lengths are those of
            single styles.
        n_critic: discriminator steps for each generator step.
        unroll_steps: gradient steps on the game alone, which the discriminator would take on the same batch. The
            generator differentiates through them (Metz et al. 2016, arXiv:1611.02163).
        unroll_lr: learning rate of these steps.
        top_k: share of each batch that the generator learns from at the end of the training: the fakes with the largest
            logits. It falls linearly from 1 (Sinha et al. 2020, arXiv:2002.06224).
        conditional: condition both players on class labels.
        ema_halflife_images: half-life of the averaged generator in images; 0 turns averaging off.
        optimizer: of each player, with its learning rate and schedule.
        discriminator_lr: learning rate of the discriminator (Heusel et al. 2017, arXiv:1706.08500); None is that of
            `optimizer`.
        clip: largest gradient norm of each player; 0 turns clipping off.
        accumulate: batches per optimizer step.
        augmentation: random changes of what the discriminator sees, for data sets of few images.
        auxiliary: further task of the players: "classifier" of labels (ACGAN), "codes" (InfoGAN).
        feature_dim: width of the layer before the discriminator's logit.
        generator: network from noise to samples.
        discriminator: network from samples to features.

    Raises:
        ConfigError: an augmentation that does not fit the data or the loss, or `style_mixing` of a generator without
            styles, or with codes.
    """

    path_length_mean: Tensor
    paper = "Goodfellow et al. 2014 (arXiv:1406.2661)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        latent_dim: PositiveInt = 64,
        loss: LossName = "non_saturating",
        r1_gamma: NonNegative = 0.0,
        r2_gamma: NonNegative = 0.0,
        gp_weight: NonNegative = 0.0,
        lazy_reg_interval: PositiveInt = 1,
        consistency_weight: NonNegative = 0.0,
        consistency_fake_weight: NonNegative = 0.0,
        consistency_augmentation: Annotated[str | dict[str, Any], Component("augmentation")] = "diffaug",
        orthogonal_weight: NonNegative = 0.0,
        path_length_weight: NonNegative = 0.0,
        path_length_interval: PositiveInt = 4,
        style_mixing: Fraction = 0.0,
        n_critic: PositiveInt = 1,
        unroll_steps: Count = 0,
        unroll_lr: Positive = 0.01,
        top_k: Share = 1.0,
        conditional: bool = False,
        ema_halflife_images: NonNegative = 10_000.0,
        optimizer: Optimizer = "adam",
        discriminator_lr: Positive | None = None,
        clip: NonNegative = 0.0,
        accumulate: PositiveInt = 1,
        augmentation: Annotated[str | dict[str, Any], Component("augmentation")] = "none",
        auxiliary: Annotated[str | dict[str, Any], Component("auxiliary")] = "none",
        feature_dim: PositiveInt = 128,
        generator: Decoder = "auto",
        discriminator: Encoder = "auto",
    ) -> None:
        super().__init__(spec)
        self.game, self.latent_dim = GAN_LOSSES[loss], latent_dim
        n_classes = spec.n_classes if conditional else 0
        further: Auxiliary = self.build_component("auxiliary", "auxiliary", latent_dim, feature_dim, n_classes)
        judges = further.of_discriminator
        decoder = self.build_generator(latent_dim, latent_dim if conditional else 0)
        bounded = isinstance(spec.x, Image)
        self.generator = Generator(decoder, latent_dim, n_classes, bounded, None if judges else further)
        encoder = self.build_component("discriminator", "encoder", spec.shape, feature_dim)
        projected = n_classes if further.projects else 0
        self.discriminator = Discriminator(encoder, feature_dim, projected, further if judges else None)
        self.generator_ema = EMA(self.generator, ema_halflife_images)
        if style_mixing:
            self.check_styles(f"model.style_mixing={style_mixing}", "Use 0")
            if self.generator.auxiliary is not None and self.generator.auxiliary.terms:
                raise ConfigError(
                    f"model.style_mixing={style_mixing}: mixed samples do not have the codes of one noise. Choose "
                    "model/auxiliary=none, or model.style_mixing=0."
                )
        if path_length_weight:
            self.register_buffer("path_length_mean", torch.zeros(()))
        self.augment: Augmentation = self.build_component("augmentation", "augmentation", spec)
        if consistency_weight or consistency_fake_weight:
            self.change: Augmentation = self.build_component("consistency_augmentation", "augmentation", spec)
        if self.augment.needs_logits and self.game.boundary is None:
            raise ConfigError(
                f"model.augmentation={self.augment.registered_name}: the signs of logits have no meaning with "
                f"model.loss={loss}. Choose model/augmentation=diffaug, or model.loss=non_saturating."
            )

    def build_generator(self, latent_dim: int, label_dim: int) -> Any:
        """Network from noise and the embedding of a label, side by side; some networks use both apart."""
        chosen = self.hparams["generator"]
        name = chosen if isinstance(chosen, str) else chosen["name"]
        apart = label_dim and "takes_condition" in peek("decoder", name).attributes
        shape = self.spec.shape
        return self.build_component("generator", "decoder", latent_dim + label_dim, shape, *[label_dim] * bool(apart))

    def check_styles(self, setting: str, remedy: str) -> None:
        """Raise ConfigError if the generator has no styles."""
        if not self.generator.has_mapping:
            raise ConfigError(f"{setting}: this generator has no styles. {remedy}, or model.generator=stylegan2.")

    @property
    def auxiliary(self) -> Auxiliary:
        """The further task, a part of the player that trains it."""
        return cast(Auxiliary, self.discriminator.auxiliary or self.generator.auxiliary)

    # -- the objective ---------------------------------------------------------------------------------------

    def discriminator_terms(self, batch: Batch) -> dict[str, Tensor]:
        """Loss of the discriminator, "loss_d", with its penalties and statistics."""
        x, y = batch
        real = self.to_model_range(x)
        with torch.no_grad():  # the generator is fixed in this step
            fake = self.generated(self.latents(len(x)), y).to(real.dtype)
        real, fake = self.augment(real), self.augment(fake)
        own = self.auxiliary.of_discriminator
        (real_logits, real_phi), (fake_logits, fake_phi) = (self.judge(part, y, own) for part in (real, fake))
        loss = self.game.discriminator(real_logits, fake_logits)
        self.adapt(real_logits.detach())
        penalties = self.penalties(real, fake, y)
        for name, x, logits in (("consistency", real, real_logits), ("consistency_fake", fake, fake_logits)):
            if weight := self.hparams[f"{name}_weight"]:
                penalties[name] = weight * consistency(logits, self.discriminator(self.change(x), y))
        if own:
            penalties |= self.auxiliary.discriminator_terms(real_phi, fake_phi, y)
        terms = {"loss_d": loss + sum(penalties.values()), **{k: v.detach() for k, v in penalties.items()}}
        if self.attached_trainer is not None and not self.is_logging_step:  # the statistics are not logged
            return terms
        return {
            **terms,
            "logit_real": real_logits.detach().mean(),
            "logit_fake": fake_logits.detach().mean(),
            **self.augment.state_terms(),
            "accuracy_d": (real_logits.detach() > fake_logits.detach()).float().mean(),  # on pairs of real and fake
        }

    def generated(self, z: Tensor, y: Tensor) -> Tensor:
        """Noise (B, Z), labels (B,) -> samples (B, *shape) of the current generator; in training some mix styles."""
        share = self.hparams["style_mixing"]
        if not share or not self.training:
            return self.generator(z, y)
        n, layers = len(z), int(cast(Any, self.generator.network).n_styles)
        crossover = torch.randint(1, layers, (n,), device=z.device)
        crossover = torch.where(torch.rand(n, device=z.device) < share, crossover, layers)
        return self.generator(z, y, 1.0, self.latents(n), crossover)

    def judge(self, x: Tensor, y: Tensor, further: bool) -> tuple[Tensor, Tensor]:
        """Logits (B,) of samples, and their features (B, F) where a further task reads them, else none of them."""
        if not further:
            return self.discriminator(x, y), x.new_empty(0)
        phi = self.discriminator.features(x)
        return self.discriminator.logits(phi, y), phi

    def adapt(self, real_logits: Tensor) -> None:
        """Show the logits of real samples (B,) of all devices to the augmentation, in training."""
        if self.augment.needs_logits and self.training and self.attached_trainer is not None:
            gathered = cast(Tensor, self.all_gather(real_logits)).flatten()
            self.augment.observe(gathered - cast(float, self.game.boundary))

    def discriminator_saturates(self) -> bool:
        """Whether the generator's gradient vanishes where the discriminator separates all samples."""
        return self.hparams["loss"] != "wasserstein"  # its slope is the same everywhere

    def penalties(self, real: Tensor, fake: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Weighted penalties that are on and due in this step."""
        every = self.hparams["lazy_reg_interval"]
        if self.discriminator_steps % every:
            return {}

        def critic(x: Tensor) -> Tensor:
            return self.discriminator.forward(x, y)  # bypasses compilation: see `input_gradient`

        r1, r2, gp = (self.hparams[k] * every for k in ("r1_gamma", "r2_gamma", "gp_weight"))
        found = {}
        if r1:
            found["r1"] = r1 / 2 * r1_penalty(critic, real)
        if r2:
            found["r2"] = r2 / 2 * r1_penalty(critic, fake)
        if gp:
            found["gp"] = gp * gradient_penalty(critic, real, fake)
        return found

    def generator_terms(self, batch: Batch) -> dict[str, Tensor]:
        """Loss of the generator, "loss_g", on fresh noise."""
        x, y = batch
        z = self.latents(len(x))
        fake = self.augment(self.generated(z, y))
        real_logits, steps, lr = torch.zeros(()), self.hparams["unroll_steps"], self.hparams["unroll_lr"]
        if steps:
            real = self.augment(self.to_model_range(x))
            real_logits, fake_logits, fake_phi = look_ahead(
                self.discriminator, self.game, real, fake, y, steps=steps, lr=lr
            )
        else:
            fake_logits, fake_phi = self.judge(fake, y, bool(self.auxiliary.terms))
            if self.game.paired:
                with torch.no_grad():  # real samples do not depend on the generator
                    real_logits = self.discriminator(self.augment(self.to_model_range(x)), y)
        real_logits = real_logits if self.game.paired else torch.zeros_like(fake_logits)
        kept = self.best(fake_logits)
        loss = self.game.generator(real_logits[kept], fake_logits[kept])
        further = self.generator_penalties(z, y)
        if self.auxiliary.terms:
            further |= {f"{k}_g": v for k, v in self.auxiliary.generator_terms(fake_phi, y, z).items()}
        return {"loss_g": loss + sum(further.values()), **{k: v.detach() for k, v in further.items()}}

    def generator_penalties(self, z: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Weighted penalties of the generator that are on and due in this step."""
        h, found = self.hparams, {}
        if h["orthogonal_weight"]:
            matrices = [p for p in self.generator.network.parameters() if p.ndim > 1]
            found["orthogonal"] = h["orthogonal_weight"] * orthogonal_penalty(matrices)
        every = h["path_length_interval"]
        if h["path_length_weight"] and (self.discriminator_steps // h["n_critic"]) % every == 0:
            found["path_length"] = h["path_length_weight"] * every * self.path_length_penalty(z, y)
        return found

    def path_length_penalty(self, z: Tensor, y: Tensor) -> Tensor:
        """Mean squared distance of path lengths from their running mean, which follows them in training."""
        with torch.enable_grad(), torch.autocast(z.device.type, enabled=False):  # second derivatives
            w = self.generator.style(z, y)
            w = w if w.requires_grad else w.detach().requires_grad_()
            lengths = path_lengths(self.generator.synthesize(w), w)
        if self.training and self.attached_trainer is not None:
            mean = cast(Tensor, self.all_gather(lengths.detach())).mean()
            followed = self.path_length_mean.lerp(mean, 1 - PATH_DECAY)
            self.path_length_mean.copy_(torch.where(self.path_length_mean == 0, mean, followed))  # begins at the first
        return (lengths - self.path_length_mean).square().mean()

    def best(self, fake_logits: Tensor) -> Any:
        """Index of the fakes (B,) that the generator learns from: all, or in training those with the largest logits."""
        if self.hparams["top_k"] == 1 or not self.training or self.attached_trainer is None:
            return slice(None)
        share = 1 - (1 - self.hparams["top_k"]) * min(self.step / max(self.total_steps, 1), 1)
        return fake_logits.topk(max(round(share * len(fake_logits)), 1)).indices

    def latents(self, n: int) -> Tensor:
        """Noise for training, drawn on the device: (n, Z)."""
        return torch.randn(n, self.latent_dim, device=self.device)

    # -- samples ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def decode(self, z: Tensor, y: Tensor, ema: bool = True, psi: float = 1.0, *mixed: Tensor) -> Tensor:
        """Noise (B, Z) and labels (B,) -> data (B, *shape), by the averaged generator or the current one.

        `mixed` is further noise (B, Z), and the layer (B,) from which on its style is used.
        """
        if ema:
            return self.to_data_range(self.generator_ema(z, y, psi, *mixed))
        mode = self.generator.training
        try:  # in evaluation mode, or batch normalisation would mix samples
            return self.to_data_range(self.generator.eval()(z, y, psi, *mixed))
        finally:
            self.generator.train(mode)

    def generator_for_samples(self) -> nn.Module:
        """The averaged generator."""
        return self.generator_ema

    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        ema: bool = True,
        truncation: NonNegative = 0.0,
        psi: Fraction = 1.0,
        crossover: Count = 0,
    ) -> Tensor:
        """Draw n samples, (n, *shape).

        Args:
            n: number of samples.
            condition: class labels (n,), where None draws them at random.
            generator: source of randomness.
            ema: use the averaged generator instead of the current one.
            truncation: largest size of the noise: smaller ones give more typical and less varied samples (Brock et al.
                2018, arXiv:1809.11096, section 3.1). 0 is off.
            psi: of a generator with styles, as `stylegan2`: moves styles to their mean, where 1 keeps them and 0 draws
                one typical sample (Karras et al. 2018, arXiv:1812.04948, appendix B).
            crossover: of a generator with styles: number of coarse layers with the sample's own style. The others
                have the style of one common noise (the same paper, figure 3). 0 is off.

        Raises:
            ConfigError: `psi` or `crossover` of a generator without styles, or a layer that it does not have.
            DataError: the model is unconditional, or the condition is not n class labels.
        """
        if psi != 1:
            self.check_styles(f"psi={psi}", "Use truncation=1")
        if crossover:
            self.check_styles(f"crossover={crossover}", "Leave it out")
            layers = int(cast(Any, self.generator.network).n_styles)
            if crossover >= layers:
                raise ConfigError(f"crossover={crossover}: the styles are of {layers} layers. Use 1 to {layers - 1}.")
        y = self.resolve_labels(n, condition, generator)
        z = self.randn(n, self.latent_dim, generator=generator)
        z = truncate(z, truncation) if truncation else z
        if not crossover:
            return self.decode(z, y, ema, psi)
        other = self.randn(1, self.latent_dim, generator=generator).expand_as(z)
        other = truncate(other, truncation) if truncation else other
        return self.decode(z, y, ema, psi, other, torch.full((n,), crossover, device=z.device))

    def charts(self) -> dict[str, list[str]]:
        """Both players on one chart, and the validation metrics."""
        names = {"r1_gamma": "r1", "r2_gamma": "r2", "gp_weight": "gp", "orthogonal_weight": "orthogonal"}
        names |= {f"{k}_weight": k for k in ("path_length", "consistency", "consistency_fake")}
        own, fitted = self.auxiliary.of_discriminator, ["train/overfitting", "train/augment_probability"]
        penalties = {f"penalty {name}": [f"train/{name}"] for key, name in names.items() if self.hparams[key]}
        return {
            "players": ["train/loss_d", "train/loss_g"],
            "logits": ["train/logit_real", "train/logit_fake"],
            **penalties,
            **({"over-fitting": fitted} if self.augment.needs_logits else {}),
            **{name: [*own * [f"train/{name}"], f"train/{name}_g"] for name in self.auxiliary.terms},
            **super().charts(),
        }
