"""Diffusion and flow matching: a network removes noise, and a sampler repeats it from pure noise to data."""

import copy
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from zoo.core import registry
from zoo.core.errors import ConfigError
from zoo.core.registry import register
from zoo.core.signature import Component, Fraction, NonNegative, PositiveInt
from zoo.core.space import Space
from zoo.core.spaces import ABSENT, Image, Series, Tokens, Vector, Video
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.diffusion.base import MAX_LOG_SNR, SEED, checked_interval
from zoo.models.diffusion.editing import EditingModel
from zoo.models.given_condition import rows_without_condition
from zoo.models.results import Curve, Likelihood
from zoo.nn.blocks.standardize import Standardize
from zoo.nn.diffusion.coupling import Coupling, Reflow
from zoo.nn.diffusion.likelihood import EXACT_DIVERGENCE, ode_log_prob, variational_bound
from zoo.nn.diffusion.path import Path
from zoo.nn.diffusion.sampler import Denoise, Sampler
from zoo.nn.diffusion.target import Target, coefficients, determinant
from zoo.nn.diffusion.times import Times, stratified
from zoo.nn.diffusion.weighting import Weighting
from zoo.nn.networks.components import Backbone, Denoiser
from zoo.nn.networks.conditioned import NO_IMAGE, ImageConditioned, TextConditioned
from zoo.nn.optim.components import Optimizer

MAX_LEVELS = 32  # of images, for one logit per level
TEXT_ENCODER = {"name": "transformer_encoder", "d_model": 64, "n_layers": 2}  # small: captions are short
BINS = 4  # noise levels whose losses are logged apart
BOUND_DRAWS = 8  # times per sample in the variational bound


@register("model", "diffusion")
class Diffusion(EditingModel):
    """Diffusion or flow matching: any path, target, weighting, distribution of times, coupling, sampler and network.

    z = a(t) x + s(t) e goes from data (t = 0) to noise (t = 1). The network predicts a combination of x and e from z
    and the log-SNR. Data are standardised by one mean and deviation. `loss` is a weighted squared error per value;
    with weighting=elbo it is in nats.

    Args:
        spec: what the data looks like.
        path: a(t) and s(t).
        target: what the network predicts; see `zoo.nn.diffusion.target`. "levels" predicts a probability of each level
            of an image, and adds the value's own Gaussian evidence exactly. Images of more than 32 levels and other
            data have the target v in its place.
        weighting: of the loss over noise levels.
        times: distribution of noise levels in training.
        coupling: which noise goes with which sample.
        denoiser: the network.
        sampler: default of `sample`.
        text_encoder: reads the texts that the data are given with, if they are.
        conditional: false ignores class labels, texts and images that the data are given with; None uses them.
        label_dropout: share of a batch that is trained without its label, text or image, for guidance.
        guidance: default weight of classifier-free guidance; 1 is off.
        guidance_interval: two log-SNRs between which guidance acts (Kynkäänniemi et al. 2024, arXiv:2404.07724); None
            is everywhere.
        clip: clip the estimates of x to the range of images while sampling.
        autoguidance: share of the training after which a validation stores the network as it is then, averaged if
            weights are averaged. `guidance` then leads away from that weaker model (Karras et al. 2024,
            arXiv:2406.02507), without labels too. 0 stores nothing.
        optimizer: with its learning rate and schedule.

    Raises:
        ConfigError: a target that is undefined at the end of the path, or not an interval.
    """

    accepts: ClassVar[tuple[type[Space], ...]] = (Image, Vector, Series, Video)
    paper = "Ho et al. 2020 (arXiv:2006.11239); Lipman et al. 2022 (arXiv:2210.02747)"
    likelihood_kind = "continuous"  # of `log_prob`
    n_levels: ClassVar[int] = 1  # numbers by which the network is given the noise level

    def __init__(
        self,
        spec: DataSpec,
        *,
        path: Annotated[str | dict[str, Any], Component("path")] = "linear",
        target: Literal["x", "eps", "velocity", "v", "score", "edm", "levels"] = "velocity",
        weighting: Annotated[str | dict[str, Any], Component("weighting")] = "from_target",
        times: Annotated[str | dict[str, Any], Component("times")] = "uniform",
        coupling: Annotated[str | dict[str, Any], Component("coupling")] = "independent",
        denoiser: Denoiser = "auto",
        text_encoder: Backbone | None = None,
        sampler: Annotated[str | dict[str, Any], Component("sampler")] = "heun",
        conditional: bool | None = None,
        label_dropout: Fraction = 0.1,
        guidance: NonNegative = 1.0,
        guidance_interval: list[float] | None = None,
        clip: bool = False,
        autoguidance: Fraction = 0.0,
        optimizer: Optimizer = "adam",
    ) -> None:
        super().__init__(spec)
        self.conditional = bool(spec.n_classes) if conditional is None else conditional
        n_levels = spec.x.levels if isinstance(spec.x, Image) else MAX_LEVELS + 1
        if target == "levels" and not 0 < n_levels <= MAX_LEVELS:
            target = "v"
        self.predicts_levels = target == "levels"
        self.path: Path = self.build_component("path", "path", method="at")
        if target in ("eps", "score") and self.path.number(self.path.last).a < 1e-9:
            raise ConfigError(
                f"model.target={target}: undefined where the path ends without signal. Choose model.target=velocity, "
                "or model/path=vp_cosine."
            )
        self.target: Target = "x" if target == "levels" else target
        self.weighting: Weighting = self.build_component("weighting", "weighting", method="loss_factor")
        self.times: Times = self.build_component("times", "times", method="draw")
        self.coupling: Coupling = self.build_component("coupling", "coupling", method="pair")
        if isinstance(self.coupling, Reflow) and not hasattr(self, "make_pairs"):
            raise ConfigError(
                "model/coupling=reflow: the pairs come from a trained model. Choose model=rectified_flow init_from=RUN."
            )
        self.sampler: Sampler = self.build_component("sampler", "sampler", method="run")
        if not isinstance(spec.condition, Image) or not isinstance(spec.x, Image) or conditional is False:
            self.lacks("translate")
        if not self.sampler.exportable:
            self.lacks("export")
        if self.has_levels:
            self.lacks("log_prob")  # images are on a grid of levels, which have no density; see `bound`
        checked_interval(guidance_interval)
        self.standardize = Standardize(spec, images=True)
        n_out = n_levels if self.predicts_levels else 1
        self.denoiser: nn.Module = self.build_denoiser(n_out)
        self.weak: nn.Module | None = copy.deepcopy(self.denoiser).requires_grad_(False) if autoguidance else None
        self.weak_is_stored = False

    def build_denoiser(self, n_out: int) -> nn.Module:
        """Build the network with its condition: class labels, an image in further channels, or a text."""
        spec, use = self.spec, self.hparams["conditional"] is not False
        levels = () if self.n_levels == 1 else (self.n_levels,)
        if use and isinstance(spec.condition, Image) and isinstance(spec.x, Image):
            self.given = spec.condition
            size, more = (spec.x.height, spec.x.width), spec.condition.channels
            shape = spec.x.channels + more + 1, *size
            inner = self.build_component("denoiser", "denoiser", shape, n_out, 0, *levels)
            return ImageConditioned(inner, spec.x.channels, more, size)
        if use and isinstance(spec.condition, Tokens):
            self.given = spec.condition
            chosen = self.hparams["text_encoder"] or TEXT_ENCODER
            sizes = spec.condition.vocab_size, 1, spec.condition.length
            encoder = registry.build("backbone", chosen, *sizes, where="model.text_encoder")
            encoder.head = nn.Identity()  # of a language model: its logits are not used
            width = encoder.config.d_model
            inner = self.build_component("denoiser", "denoiser", spec.shape, n_out, 0, self.n_levels, width)
            return TextConditioned(inner, encoder, width)
        n_classes = spec.n_classes if self.conditional else 0
        return self.build_component("denoiser", "denoiser", spec.shape, n_out, n_classes, *levels)

    # -- guidance by a weaker copy -------------------------------------------------------------------------------

    def on_validation_start(self) -> None:
        """Store the weaker copy at the first validation after its share of the training."""
        due = self.trainer.state.fn == "fit" and not self.trainer.sanity_checking
        if self.weak is None or not due or self.weak_is_stored:
            return
        if self.step + 1 >= self.hparams["autoguidance"] * self.total_steps:
            self.weak.load_state_dict(self.denoiser.state_dict())
            self.weak_is_stored = True

    def note(self) -> dict[str, Any]:
        """Also whether the weaker copy is stored."""
        return super().note() | ({} if self.weak is None else {"weak_is_stored": self.weak_is_stored})

    def restore_note(self, note: dict[str, Any]) -> None:
        """See `LightningMixin`."""
        super().restore_note(note)
        self.weak_is_stored = bool(note.get("weak_is_stored", False))

    def weak_estimate(self, *given: Any, **options: Any) -> tuple[Tensor, Tensor]:
        """`estimate` by the weaker copy."""
        strong = self.denoiser
        try:
            self.denoiser = cast(nn.Module, self.weak)
            return self.estimate(*given, **options)
        finally:
            self.denoiser = strong

    def worse(self, y: Tensor | None) -> Denoise | None:
        """See `DenoisingModel`: the weaker copy, once it is stored."""
        if self.weak is None:
            return super().worse(y)
        return partial(self.weak_estimate, y=y) if self.weak_is_stored else None

    # -- the objective -------------------------------------------------------------------------------------------

    def draw(self, x: Tensor, y: Tensor | None, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        """Noise (B, *shape), stratified times (B,) and their density (B,); see `squared_errors`."""
        place = self.device if generator is None else torch.device("cpu")
        u = stratified(len(x), generator, place).to(self.device)
        noise = torch.randn(x.shape, generator=generator, device=place, dtype=x.dtype).to(self.device)
        noise = self.coupling.pair(x, noise, y if self.conditional else None)
        return noise, *self.times.draw(u, self.path)

    def squared_errors(
        self, x: Tensor, y: Tensor | None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Weighted squared error per value of each sample, and its time, both (B,).

        Args:
            x: standardised data (B, *shape).
            y: labels (B,); None trains without.
            generator: on the CPU, of times and noise; None draws on the device.
        """
        noise, t, density = self.draw(x, y, generator)
        errors = self.errors_of(x, y, noise, t, density)
        self.times.observe(errors)
        return errors, t

    def errors_of(self, x: Tensor, y: Tensor | None, noise: Tensor, t: Tensor, density: Tensor) -> Tensor:
        """Weighted squared error per value (B,) for given noise (B, *shape), times (B,) and their density (B,)."""
        at, wide = self.path.at(t), self.path.at(t).like(x)
        p, q = coefficients(self.target, wide)
        output = self.predict(wide.a * x + wide.s * noise, wide, self.dropped(y))
        error = (output - (p * x + q * noise)).square().flatten(1).mean(1)
        return self.weighting.loss_factor(self.target, at, density) * error

    def dropped(self, y: Tensor | None) -> Tensor | None:
        """Conditions (B, ...), in training with those of some rows left out."""
        if y is None or not (self.conditional or self.given is not None):
            return None
        share = self.hparams["label_dropout"]
        if not self.training or not share:
            return y
        rows = rows_without_condition(len(y), share, y.device)
        nothing = NO_IMAGE if isinstance(self.given, Image) else ABSENT if self.given else self.spec.n_classes
        return y.masked_fill(rows.view(-1, *[1] * (y.ndim - 1)), nothing)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Mean weighted squared error per value."""
        errors, _ = self.squared_errors(self.standardize(batch.x), batch.y)
        return {"loss": errors.mean()}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss, also by quarters of the noise levels, with the same times and noise at every validation."""
        generator = torch.Generator().manual_seed(SEED + batch_idx)
        errors, t = self.squared_errors(self.standardize(batch.x), batch.y, generator)
        self.log_epoch_mean({"val/loss": errors.mean()}, len(errors))
        share = (t - self.path.first) / (self.path.last - self.path.first)
        for index in range(BINS):
            inside = (share * BINS).long().clamp(max=BINS - 1) == index
            if number := int(inside.sum()):
                self.log_epoch_mean({f"val/loss_noise_{index + 1}_of_{BINS}": errors[inside].mean()}, number)

    def charts(self) -> dict[str, list[str]]:
        """The loss, and its parts by noise level."""
        parts = [f"val/loss_noise_{index + 1}_of_{BINS}" for index in range(BINS)]
        return {"loss": ["train/loss", "val/loss"], "loss by noise level": parts}

    @torch.no_grad()
    def curves(self) -> list[Curve]:
        """The schedule: log-SNR over time, density of training times, and the weight of each noise level.

        The weight is w(lambda) of the loss 1/2 E[w(lambda) (-dlambda/dt) / pi(t) |e_hat - e|^2], as the logarithm of
        its share of the largest value.
        """
        u = torch.linspace(0.002, 0.998, 257, dtype=torch.float64)
        t, density = self.times.draw(u, self.path)
        t, order = t.sort()
        density = density[order]
        at = self.path.at(t)
        rate = 2 * at.wronskian / (at.a * at.s) / density
        error = (determinant(self.target, at) / at.a).square()  # of the output, over that of the noise
        weight = 2 * self.weighting.loss_factor(self.target, at, density) * error / rate
        whole = self.path.at(torch.linspace(self.path.first, self.path.last, 257, dtype=torch.float64))
        log_snr = whole.log_snr.clamp(-MAX_LOG_SNR, MAX_LOG_SNR)
        steps = torch.tensor([point.t for point in self.sampler.plan(self.path)]) if self.sampler.fixed_steps else None
        return [
            Curve("log-SNR, and the steps of the sampler", whole.t, log_snr, "time", steps),
            Curve("density of training times", t, density, "time"),
            Curve("log of the loss's weight", at.log_snr.flip(0), (weight / weight.max()).log().flip(0), "log-SNR"),
        ]

    # -- images given images -------------------------------------------------------------------------------------

    def source_space(self, *, reverse: bool = False) -> Image:
        """Images that `translate` takes."""
        return cast(Image, self.given)

    def translate(
        self,
        x: Tensor,
        *,
        generator: torch.Generator | None = None,
        steps: PositiveInt | None = None,
        guidance: NonNegative | None = None,
        guidance_interval: list[float] | None = None,
        sampler: str | None = None,
    ) -> Tensor:
        """Draw one sample (B, *shape) for each given image x (B, C', H', W').

        Args:
            x: images that the data are given with, in [0, 1].
            generator: source of randomness.
            steps: see `sample`.
            guidance: see `sample`.
            guidance_interval: see `sample`.
            sampler: see `sample`.

        Raises:
            ZooError: see `sample`.
        """
        options: dict[str, Any] = {"steps": steps, "guidance": guidance, "guidance_interval": guidance_interval}
        return self.sample(len(x), condition=x, generator=generator, sampler=sampler, **options)

    # -- likelihoods ---------------------------------------------------------------------------------------------

    def likelihoods(self, x: Tensor, y: Tensor | None = None, *, k: int = 1) -> tuple[Likelihood, ...]:
        """Data on levels: a bound on their probability. Vectors, and other continuous data: the density by the ODE."""
        if self.has_levels:
            return (Likelihood(self.bound(x, y, draws=BOUND_DRAWS * k), "discrete", exact=False, name="nll_bound"),)
        return (Likelihood(self.log_prob(x, y), "continuous", exact=True, name="nll_ode"),)

    @torch.no_grad()
    def bound(self, x: Tensor, y: Tensor | None = None, draws: int = BOUND_DRAWS) -> Tensor:
        """Variational lower bound on the log-probability of an image's levels, nats (B,), from so many times each."""
        denoise = partial(self.estimate, y=self.labels(y))
        return variational_bound(denoise, self.standardize(x), self.path, self.level_values(), draws)

    def log_prob(self, x: Tensor, y: Tensor | None = None, tolerance: float = 1e-4) -> Tensor:
        """Log-density by the probability-flow ODE, nats (B,); the divergence is an estimate above 16 dimensions."""
        y, x = self.labels(y), self.standardize(x)
        first = max(self.path.first, float(self.path.time_of(torch.tensor(13.0))))
        probe = None if x[0].numel() <= EXACT_DIVERGENCE else torch.randint_like(x, 2) * 2 - 1
        log_prob = ode_log_prob(partial(self.estimate, y=y), x, self.path, first, tolerance, probe)
        return log_prob + self.standardize.log_abs_det
