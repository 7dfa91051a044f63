"""Priors p(z) of latent-variable models.

    prior = MixturePrior(dim, family, spec)
    prior.log_prob(z, encode)               # (..., dim) -> (...), nats
    prior.sample(n, generator, encode, like)    # (n, dim)

`encode` maps data in the units of the encoder to the parameters of the posterior. Only `vamp` calls it.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core import registry
from zoo.core.errors import ConfigError, ZooError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.space import PixelSpace
from zoo.core.spec import DataSpec
from zoo.nn.distributions.mixtures import ClassMixtures, GaussianMixture, LearnedMixture, categorical_from_uniform
from zoo.nn.distributions.normal import log_normal, slerp
from zoo.nn.distributions.posteriors import Posterior, Support
from zoo.nn.distributions.von_mises_fisher import log_sphere_area
from zoo.nn.flows.base import FlowTransform, Transform
from zoo.nn.samplers.exportable import InputSpec, draw_inputs

Encode = Callable[[Tensor], Tensor]  # (B, *shape) -> parameters of the posterior (B, n_params)
VALUES = 2**24  # numbers in one table of points, components and dimensions: 64 MB


class Prior(nn.Module):
    """Base class: N(0, I), with straight interpolations.

    Args:
        dim: size of z.
        family: of the posterior.
        spec: what the data looks like.

    Attributes:
        support: where z lies.
        standard: whether densities are those of the standard prior, to which the posterior may have a closed-form KL.
        encodes: whether it calls `encode`.
        speed: learning rate over that of the networks.
        inputs: random numbers that `transform` maps to z.
        density: mixture that is fitted to latents in training; None for none.
        by_class: whether z depends on the class: `transform` then takes labels (B,) as its last argument.

    Raises:
        ConfigError: posteriors with another support.
    """

    support: Support = "real"
    standard: bool = False
    encodes: bool = False
    speed: float = 1.0
    density: GaussianMixture | ClassMixtures | None
    by_class: bool = False
    registered_name: str

    def __init__(self, dim: int, family: Posterior, spec: DataSpec) -> None:
        super().__init__()
        if self.support != family.support:
            fits = "uniform_sphere" if family.support == "sphere" else "standard"
            raise ConfigError(
                f"model.posterior={family.registered_name}: model.prior={self.registered_name} does not cover its "
                f"latents. Choose model/prior={fits}."
            )
        self.dim, self.density = dim, None  # on the instance: a class attribute would hide the module of this name
        self.inputs = [InputSpec("noise", "normal", (dim,))]

    def log_prob(self, z: Tensor, encode: Encode) -> Tensor:
        """Log-density at z (..., dim), nats (...)."""
        return log_normal(z, torch.zeros_like(z), torch.zeros_like(z))

    def transform(self, encode: Encode, *given: Tensor) -> Tensor:
        """Random numbers, one tensor for each of `inputs`, to draws (B, dim)."""
        return given[0]

    def depend_on_class(self, n_classes: int) -> None:
        """Make z depend on the class of a conditional model, where the prior can."""

    def sample(
        self, n: int, generator: torch.Generator | None, encode: Encode, like: Tensor, y: Tensor | None = None
    ) -> Tensor:
        """Draw (n, dim), with the type and device of `like`; a seed gives equal results on all devices.

        Labels y (n,) are those of a prior by class.
        """
        given = [x.to(like) for x in draw_inputs(self.inputs, n, generator)]
        return self.transform(encode, *given, *([] if y is None or not self.by_class else [y]))

    def path(self, start: Tensor, end: Tensor, t: Tensor, *, drawn: bool) -> Tensor:
        """Points between (n, 1, dim) and (n, 1, dim) at t (steps, 1) in [0, 1]; `drawn` where both are samples."""
        return torch.lerp(start, end, t)


@register("prior", "standard")
class StandardPrior(Prior):
    """N(0, I)."""

    standard = True

    def path(self, start: Tensor, end: Tensor, t: Tensor, *, drawn: bool) -> Tensor:
        """Between draws cos t start + sin t end, which is standard normal at every t; else the direction turns."""
        if not drawn:
            return slerp(start, end, t)
        angle = t * math.pi / 2
        return angle.cos() * start + angle.sin() * end


@register("prior", "uniform_sphere")
class UniformSpherePrior(Prior):
    """Uniform distribution on the unit sphere, the standard prior of a von Mises-Fisher posterior."""

    support: Support = "sphere"
    standard = True

    def log_prob(self, z: Tensor, encode: Encode) -> Tensor:
        """Minus the logarithm of the area."""
        return z.new_full(z.shape[:-1], -log_sphere_area(self.dim))

    def transform(self, encode: Encode, *given: Tensor) -> Tensor:
        """Normal vectors, scaled to length one."""
        return F.normalize(given[0], dim=-1)

    def path(self, start: Tensor, end: Tensor, t: Tensor, *, drawn: bool) -> Tensor:
        """Great circles."""
        return slerp(start, end, t)


@register("prior", "fitted")
class FittedPrior(Prior):
    """N(0, I) in training and bounds; samples come from a mixture that is fitted to the latents.

    (Ex-post density estimation, Ghosh et al. 2019, arXiv:1903.12436.) A conditional model has one mixture for each
    class: latents of different classes do not have one distribution.

    Args:
        dim: size of z.
        family: of the posterior.
        spec: what the data looks like.
        n_components: most components of the mixture, or of the mixtures of all classes together.
    """

    standard = True

    def __init__(self, dim: int, family: Posterior, spec: DataSpec, *, n_components: PositiveInt = 128) -> None:
        super().__init__(dim, family, spec)
        self.density, self.n_components = GaussianMixture(dim, n_components), n_components
        self.inputs.insert(0, InputSpec("choice", "uniform"))

    def depend_on_class(self, n_classes: int) -> None:
        """See `Prior.depend_on_class`."""
        self.density, self.by_class = ClassMixtures(self.dim, self.n_components, n_classes), True

    def transform(self, encode: Encode, *given: Tensor) -> Tensor:
        """Draws from the mixture, or from that of each label.

        Raises:
            ZooError: it is not fitted yet.
        """
        assert self.density is not None
        if not self.density.fitted:
            raise ZooError(
                "model.prior=fitted: cannot sample yet, because training fits the density of the latents. Train the "
                "model, or load the checkpoint of a run."
            )
        return self.density.transform(*given)


@register("prior", "mixture")
class MixturePrior(Prior):
    """Mixture of Gaussians, trained with the networks (a baseline of Tomczak & Welling 2017, arXiv:1705.07120).

    Args:
        dim: size of z.
        family: of the posterior.
        spec: what the data looks like.
        n_components: of the mixture.
    """

    speed = 10.0  # to follow the posteriors of the networks

    def __init__(self, dim: int, family: Posterior, spec: DataSpec, *, n_components: PositiveInt = 128) -> None:
        super().__init__(dim, family, spec)
        self.mixture = LearnedMixture(dim, n_components)
        self.inputs.insert(0, InputSpec("choice", "uniform"))

    def log_prob(self, z: Tensor, encode: Encode) -> Tensor:
        """See `Prior.log_prob`."""
        return self.mixture.log_prob(z)

    def transform(self, encode: Encode, *given: Tensor) -> Tensor:
        """See `Prior.transform`."""
        return self.mixture.transform(*given)


@register("prior", "vamp")
class VampPrior(Prior):
    """Mixture of the posteriors of learned pseudo-inputs (Tomczak & Welling 2017, arXiv:1705.07120, equation 9).

    Pseudo-inputs of images lie in [0, 1].

    Args:
        dim: size of z.
        family: of the posterior.
        spec: what the data looks like.
        n_components: pseudo-inputs. Each batch encodes all of them.
    """

    encodes = True

    def __init__(self, dim: int, family: Posterior, spec: DataSpec, *, n_components: PositiveInt = 128) -> None:
        super().__init__(dim, family, spec)
        assert family.noise is not None  # the support is real
        self.family = [family]  # in a list, because its weights belong to the model
        self.bounded = isinstance(spec.x, PixelSpace)
        self.raw_inputs = nn.Parameter(torch.randn(n_components, *spec.shape))
        self.inputs = [InputSpec("choice", "uniform"), InputSpec("noise", "normal", (family.noise,))]

    def pseudo_inputs(self) -> Tensor:
        """Pseudo-inputs (K, *shape)."""
        return self.raw_inputs.sigmoid() if self.bounded else self.raw_inputs

    def log_prob(self, z: Tensor, encode: Encode) -> Tensor:
        """Logarithm of the mean density of the posteriors."""
        params = encode(self.pseudo_inputs())  # (K, n_params)
        rows = max(VALUES // params.numel(), 1)
        parts = [self.family[0].log_prob(some[:, None], params) for some in z.reshape(-1, self.dim).split(rows)]
        return (torch.cat(parts).logsumexp(1) - math.log(len(params))).view(z.shape[:-1])

    def transform(self, encode: Encode, *given: Tensor) -> Tensor:
        """Draws from the posterior of a random pseudo-input."""
        choice, noise = given
        inputs = self.pseudo_inputs()
        chosen = categorical_from_uniform(noise.new_ones(len(inputs)), choice)
        return self.family[0].transform(encode(inputs)[chosen], noise)


@register("prior", "flow")
class FlowPrior(Prior):
    """N(0, I) seen through a normalizing flow, trained with the networks (Chen et al. 2016, arXiv:1611.02731).

    Args:
        dim: size of z, at least 2.
        family: of the posterior.
        spec: what the data looks like.
        flow: from z to noise, any of `zoo.nn.flows`: a name, or a mapping with its settings.
    """

    def __init__(self, dim: int, family: Posterior, spec: DataSpec, *, flow: FlowTransform = "coupling") -> None:
        super().__init__(dim, family, spec)
        self.flow: Transform = registry.build("transform", flow, (dim,), 0, where="model.prior.flow")

    def log_prob(self, z: Tensor, encode: Encode) -> Tensor:
        """Density of the noise, and the volume."""
        points = z.reshape(-1, self.dim)
        noise, log_det = self.flow(points)
        return (super().log_prob(noise, encode) + log_det).view(z.shape[:-1])

    def transform(self, encode: Encode, *given: Tensor) -> Tensor:
        """See `Prior.transform`."""
        return self.flow.inverse(given[0])
