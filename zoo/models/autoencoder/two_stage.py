"""Two stages: a frozen first stage encodes data, and a prior learns its latents."""

from collections.abc import Mapping
from functools import partial, update_wrapper
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core import registry
from zoo.core.counted import either
from zoo.core.errors import ConfigError, ZooError
from zoo.core.registry import register
from zoo.core.signature import Component
from zoo.core.space import Space
from zoo.core.spaces import Audio, Codes, Image, Tokens, Vector, Video
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule
from zoo.data.batch import Batch
from zoo.data.encoded import Encoded, EncodedData, LatentView
from zoo.models.abilities import (
    SupportsExport,
    SupportsFirstStage,
    SupportsLatentDraws,
    SupportsLatents,
    SupportsLikelihood,
    SupportsSampling,
    SupportsTokenSampling,
)
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.models.given_condition import GivenCondition
from zoo.models.given_parts import extended
from zoo.models.image_abilities import SupportsInpainting
from zoo.models.latent_density import LatentDensity
from zoo.models.results import Likelihood
from zoo.nn.samplers.exportable import ExportableSampler
from zoo.nn.samplers.noise import fork

ROUNDS = 100  # of drawing samples again that contain a token which is not a code


def forms(space: Space) -> list[Space]:
    """Spaces in which a prior may learn latents: their own, and for codes a text in which one more token begins."""
    if isinstance(space, Codes):
        return [space, Tokens(space.size, space.codebook_size + 1)]
    return [space]


@register("model", "two_stage")
class TwoStage(GivenCondition, Model):
    """A prior over the latents of a first stage; samples are decoded to data.

    The command `python train.py model=PRIOR first_stage=RUN` makes this model of any prior that learns the latents:
    images of a KL autoencoder, codes of a VQ-VAE, vectors of an autoencoder. The first stage is frozen. One checkpoint
    holds both. `loss` and its units are those of the prior.

    E [log p(x | z) + log p(z) - log q(z | x)] is a lower bound on log p(x), where both stages have a likelihood. The
    codes of x have probability one, so that this is log p(x | codes) + log P(codes), a term of the sum over codes.

    Args:
        spec: what the data looks like.
        first_stage: encoder and decoder; `first_stage=RUN` sets it.
        second_stage: model of the latents, the prior.

    Raises:
        ConfigError: a first stage without a latent space, or a prior that does not learn its latents.
    """

    accepts = (Image, Vector, Audio, Video)
    paper = "van den Oord et al. 2017 (arXiv:1711.00937); Rombach et al. 2022 (arXiv:2112.10752)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        first_stage: Annotated[str | dict[str, Any], Component("model", pretrained=True)] = "vqvae",
        second_stage: Annotated[str | dict[str, Any], Component("model")] = "masked_diffusion",
    ) -> None:
        super().__init__(spec)
        self.first_stage: Any = self.build_component("first_stage", "model", spec)
        name = self.first_stage.display_name
        if not supports(self.first_stage, SupportsFirstStage):
            raise ConfigError(
                f"model.first_stage={name}: has no latent space. Choose a run of {', '.join(first_stages())}, "
                "without class labels."
            )
        self.first_stage.requires_grad_(False).eval()
        self.latents = DataSpec(self.prior_space(second_stage), spec.condition, "latents")
        self.prior: Any = registry.build("model", second_stage, self.latents, where="model.second_stage")
        self.check_prior(self.prior)
        self.conditional, self.monitor = self.prior.conditional, self.prior.monitor
        self.given = getattr(self.prior, "given", None)
        self.prior.log = self.log
        sample: Any = update_wrapper(partial(self.sample), self.prior.sample)  # its options are those of the prior
        self.sample = sample  # type: ignore[method-assign]
        if supports(self.prior, SupportsTokenSampling) or not supports(self.prior, SupportsExport):
            self.lacks("export")  # a program for tokens would leave out the decoder
        if not supports(self.first_stage, SupportsLatents):
            self.lacks("latents")
        if getattr(self.latents.x, "frames", 0) > 1 and supports(self.prior, SupportsInpainting):
            continued: Any = update_wrapper(partial(self.predict_frames), self.prior.inpaint)
            self.predict_frames = continued  # type: ignore[method-assign]
        else:
            self.lacks("predict_frames")
        both = supports(self.first_stage, SupportsLatentDraws) and supports(self.prior, SupportsLikelihood)
        if not both or self.first_stage.likelihood_kind == "none":
            self.lacks("likelihood")

    def prior_space(self, prior: str | dict[str, Any]) -> Space:
        """The first form of the latents that a prior learns.

        Raises:
            ConfigError: none.
        """
        name = prior if isinstance(prior, str) else str(prior.get("name"))
        space: Space = self.first_stage.latent_space()
        if name in registry.names("model"):
            accepts: Any = registry.get("model", name).accepts  # type: ignore[attr-defined]
            for form in forms(space):
                if isinstance(form, accepts):
                    return form
            fits = either([kind.registered_name for kind in accepts])
            raise ConfigError(
                f"model.second_stage={name}: learns {fits}, but the latents of {self.first_stage.display_name} are "
                f"{space}. Choose a model that learns {space.registered_name} (`zoo list`)."
            )
        return space

    def check_prior(self, prior: Model) -> None:
        """Refuse a prior whose training is more than the gradient of its loss.

        Raises:
            ConfigError: it is.
        """
        own_step = type(prior).training_step is not Model.training_step or not prior.automatic_optimization
        density = isinstance(prior, LatentDensity) and prior.density is not None
        if own_step or density or not supports(prior, SupportsSampling):
            raise ConfigError(
                f"model.second_stage={prior.display_name}: does not train by the gradient of one loss. Choose a model "
                "that does, such as diffusion, masked_diffusion or gpt."
            )

    # -- data and latents ----------------------------------------------------------------------------------------

    @property
    def begins(self) -> bool:
        """Whether the prior reads codes as a text, whose first token is not a code."""
        return isinstance(self.latents.x, Tokens)

    @torch.no_grad()
    def encoded(self, batch: Batch) -> Batch:
        """A batch of data, or of latents from a loader, as the prior reads it."""
        z = batch.x if isinstance(batch, Encoded) else self.to_latent(batch.x)
        if not self.begins:
            return Batch(z, batch.y)
        codes = z.flatten(1)
        return Batch(F.pad(codes[:, :-1], (1, 0), value=self.latents.tokens.vocab_size - 1), codes)

    def to_latent(self, x: Tensor) -> Tensor:
        """Data (B, *shape) -> latents of the first stage, in its own precision."""
        with torch.autocast(x.device.type, enabled=False):
            z: Tensor = self.first_stage.to_latent(x)
        return z

    def decoded(self, z: Tensor) -> Tensor:
        """Samples of the prior -> data (B, *shape)."""
        latent = z.reshape(z.shape[0], *self.first_stage.latent_space().shape) if self.begins else z
        data: Tensor = self.first_stage.from_latent(latent)
        return data

    def loaded(self, data: DataModule) -> DataModule:
        """The data, encoded once where they are not augmented."""
        return EncodedData(data, lambda x: self.to_latent(x.to(self.device)))

    def fit_to_data(self, data: DataModule) -> None:
        """Also fit the standardisation of the prior to latents.

        Raises:
            ConfigError: the first stage is not trained.
        """
        super().fit_to_data(data)
        density = getattr(self.first_stage, "density", None)
        if density is not None and not density.fitted:
            raise ConfigError(
                f"model.first_stage={self.first_stage.display_name}: not trained. Train one, and give first_stage=RUN."
            )
        view = LatentView(data, self.latents, lambda batch: self.encoded(batch.to(self.device)))
        self.prior.fit_to_data(view)

    def check_batch(self, batch: Batch) -> None:
        """Latents are not data."""
        if not isinstance(batch, Encoded):
            super().check_batch(batch)

    # -- training: that of the prior -----------------------------------------------------------------------------

    def train(self, mode: bool = True) -> "TwoStage":
        """Switch the mode of the prior."""
        super().train(mode)
        self.first_stage.eval()
        return self

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Terms of the prior."""
        terms: dict[str, Tensor] = self.prior.loss(self.encoded(batch))
        return terms

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the metrics of the prior."""
        self.prior.validation_step(self.encoded(batch), batch_idx)

    def on_validation_start(self) -> None:
        """See the prior."""
        self.prior.on_validation_start()

    def on_validation_epoch_end(self) -> None:
        """See the prior."""
        self.prior.on_validation_epoch_end()

    def configure_optimizers(self) -> Any:
        """Optimizer of the prior."""
        self.prior.batch_limit = self.batch_limit
        return self.prior.configure_optimizers()

    def hidden_layers(self) -> list[nn.Module]:
        """Hidden layers of the prior."""
        layers: list[nn.Module] = self.prior.hidden_layers()
        return layers

    def modules_to_compile(self) -> list[nn.Module]:
        """Networks of the prior."""
        modules: list[nn.Module] = self.prior.modules_to_compile()
        return modules

    def modules_to_average(self) -> dict[str, nn.Module]:
        """Modules of the prior."""
        return {f"prior.{name}": module for name, module in self.prior.modules_to_average().items()}

    def charts(self) -> dict[str, list[str]]:
        """Charts of the prior."""
        charts: dict[str, list[str]] = self.prior.charts()
        return charts

    def resize_buffers_like(self, weights: Mapping[str, Tensor]) -> None:
        """See `Model`, for both stages."""
        for place, part in (("first_stage.", self.first_stage), ("prior.", self.prior)):
            part.resize_buffers_like({k.removeprefix(place): v for k, v in weights.items() if k.startswith(place)})

    def note(self) -> dict[str, Any]:
        """Also what the prior notes."""
        return self.prior.note() | super().note()

    def restore_note(self, note: dict[str, Any]) -> None:
        """Also restore what the prior notes."""
        super().restore_note(note)
        self.prior.restore_note(note)

    # -- abilities -----------------------------------------------------------------------------------------------

    def sample(
        self, n: int, *, condition: Tensor | None = None, generator: torch.Generator | None = None, **options: Any
    ) -> Tensor:
        """Draw latents from the prior, and decode them, (n, *shape).

        Args:
            n: number of samples.
            condition: class labels (n,) of a conditional prior, or texts (n, W) of one that reads them.
            generator: source of randomness.
            **options: those of the prior's `sample`.

        Raises:
            ZooError: a prior of texts that draws its beginning token again and again.
        """
        self.check_condition(condition)
        start = fork(generator, "again")
        z = self.prior.sample(n, condition=condition, generator=generator, **options)
        if self.begins:
            z = self.codes_only(z, start, {"condition": condition, **options})
        with torch.autocast(z.device.type, enabled=False):
            return self.decoded(z)

    def codes_only(self, z: Tensor, generator: torch.Generator, options: dict[str, Any]) -> Tensor:
        """Replace rows (n, T) with a token that is not a code: samples from the prior given that all are codes."""
        n_codes = self.latents.tokens.vocab_size - 1
        for number in range(ROUNDS):
            wrong = (z >= n_codes).any(1)
            if not wrong.any():
                return z
            again = self.prior.sample(len(z), generator=fork(generator, str(number)), **options)
            z = torch.where(wrong[:, None], again, z)
        name = self.prior.display_name
        raise ZooError(f"model.second_stage={name}: draws tokens that are not codes. Train it for longer.")

    def predict_frames(
        self, x: Tensor, *, condition: Tensor | None = None, generator: torch.Generator | None = None, **options: Any
    ) -> Tensor:
        """Draw videos (B, F, C, H, W) that begin with the frames x (B, K, C, H, W): the codes of the others are drawn.

        Args:
            x: first frames, fewer than the model's.
            condition: class labels (B,); None stands for no class.
            generator: source of randomness.
            **options: those of the prior's `inpaint`.

        Raises:
            DataError: x or labels that do not fit.
        """
        whole, new = extended(x.to(self.device), self.spec)
        z = self.to_latent(whole)  # the codes of a frame do not depend on the others
        mask = new.view(1, -1, *(1 for _ in z.shape[2:]))
        z = self.prior.inpaint(z, mask, condition=condition, generator=generator, **options)
        with torch.autocast(z.device.type, enabled=False):
            return torch.where(new, self.decoded(z), whole)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Data (B, *shape) -> latents (B, D) of the first stage."""
        z: Tensor = self.first_stage.encode(x)
        return z

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latents (B, D) of the first stage -> data (B, *shape)."""
        x: Tensor = self.first_stage.decode(z)
        return x

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Data -> data, through the first stage."""
        found: Tensor = self.first_stage.reconstruct(x)
        return found

    def likelihoods(self, x: Tensor, y: Tensor | None = None, *, k: int = 1) -> tuple[Likelihood, ...]:
        """Lower bound on log p(x) from one draw of the latents: log p(x | z) + log p(z) - log q(z | x)."""
        with torch.autocast(x.device.type, enabled=False):
            z, value = self.first_stage.draw_latent(x)
        batch = self.encoded(Encoded(z, torch.zeros(len(x), dtype=torch.int64, device=x.device) if y is None else y))
        reads = self.begins or self.conditional or (self.given is not None and y is not None)
        given = batch.y if reads else None
        prior = self.prior.likelihoods(batch.x, given, k=k)[0]
        name = f"nll_bound{prior.name.removeprefix('nll') if prior.exact else ''}"  # by the ODE, for example
        return (Likelihood(prior.value + value, self.first_stage.likelihood_kind, exact=False, name=name),)

    def export_module(self) -> ExportableSampler:
        """Random numbers of the prior's sampler -> data."""
        inner = self.prior.export_module()
        return ExportableSampler(lambda *given: self.decoded(inner(*given)), inner.inputs, inner, self.first_stage)


def first_stages() -> list[str]:
    """Registered models that offer their latents to a prior."""
    return [name for name in registry.names("model") if "latent_space" in registry.peek("model", name).methods]
