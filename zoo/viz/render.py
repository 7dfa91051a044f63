"""Renderers of spaces, and views of models: samples, reconstructions, interpolations."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from zoo.core import registry
from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.space import Space
from zoo.core.spaces import tokens_of
from zoo.data.base import DataModule
from zoo.data.batch import Batch
from zoo.data.loader import fixed_order, make_generator
from zoo.models.abilities import (
    SupportsInterpolation,
    SupportsLatents,
    SupportsSampling,
    SupportsTextGeneration,
    SupportsVisuals,
)
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.models.results import Visual
from zoo.viz import images
from zoo.viz.animation import Animation
from zoo.viz.sound import Sound

SEED = 20_000_000  # of the noise, the same for all runs
MAX_COLUMNS = 16  # more classes are not drawn in columns
SOUNDS = 4  # samples that are heard, one after another
Shown = images.Picture | str | Sound | Animation


class Csv(str):
    """Text in the form of a CSV file."""

    suffix = ".csv"


class Renderer:
    """Draws tensors of one space: `@register("renderer", NAME_OF_THE_SPACE)`."""

    space: Any  # that is drawn
    formats: ClassVar[tuple[str, ...]] = ()  # suffixes of further files; a folder of samples has the first one
    n_samples: int = 64  # per picture
    n_compared: int = 32  # data with reconstructions
    n_walks: int = 8  # interpolations
    per_page: int | None = None  # largest number in one picture, of `zoo sample -n`
    has_singles = False  # whether `single` draws one sample
    default_suffix = ".png"  # of a file of samples; of one for text, `render` gives its content

    def render(self, x: Tensor, columns: int | None = None) -> Shown:
        """Draw samples (B, *shape): a picture (H, W, 3) uint8, or text."""
        raise NotImplementedError

    def single(self, x: Tensor) -> images.Picture:
        """Draw one sample (*shape), not enlarged."""
        raise NotImplementedError

    def sound(self, x: Tensor) -> Sound | None:
        """Samples (B, *shape) one after another as sound; None for other data."""
        return None

    def animation(self, x: Tensor, columns: int | None = None) -> Animation | None:
        """Samples (B, *shape) as one moving picture; None for data that do not move."""
        return None

    def write(self, x: Tensor, path: Path) -> None:
        """Write samples (B, *shape) to a file in one of `formats`; WAV is written by `sound`."""
        raise NotImplementedError

    def compare(self, x: Tensor, y: Tensor) -> Shown | None:
        """Draw data and reconstructions (B, *shape); None if unsupported."""
        return None

    def walks(self, x: Tensor) -> Shown | None:
        """Draw interpolations (N, steps, *shape); None if unsupported."""
        return None


@register("renderer", "image")
class ImageRenderer(Renderer):
    """A grid of images."""

    per_page, has_singles = 1024, True

    def single(self, x: Tensor) -> images.Picture:
        """The image (C, H, W)."""
        return images.grid(x[None], gap=0, at_least=1)

    def render(self, x: Tensor, columns: int | None = None) -> Shown:
        """Images (B, C, H, W) in rows."""
        return images.grid(x, columns)

    def compare(self, x: Tensor, y: Tensor) -> Shown:
        """Images above their reconstructions."""
        return images.comparison_grid(x, y)

    def walks(self, x: Tensor) -> Shown:
        """One row per interpolation."""
        return images.interpolation_grid(x)


@register("renderer", "vector")
class VectorRenderer(Renderer):
    """A histogram of points."""

    n_samples = 2500

    def render(self, x: Tensor, columns: int | None = None) -> Shown:
        """Histogram of the first two coordinates of points (B, D)."""
        return images.density(x.cpu())


def renderer_of(space: Space) -> Renderer:
    """Build the renderer of a space.

    Raises:
        ZooError: none is registered.
    """
    if not has_renderer(space):
        raise ZooError(
            f"space={space.registered_name}: no renderer is registered. Register one with "
            f'@zoo.register("renderer", "{space.registered_name}").'
        )
    found: Renderer = registry.build("renderer", space.registered_name)
    found.space = space
    return found


def has_renderer(space: Space) -> bool:
    """Whether a renderer is registered for a space."""
    return space.registered_name in registry.names("renderer")


def is_heard(space: Space) -> bool:
    """Whether texts of a space are heard, as those of music are."""
    if tokens_of(space) is not space or not has_renderer(space):
        return False
    return type(renderer_of(space)).sound is not Renderer.sound


class View:
    """A picture, text or sound of a model, logged after each validation: `@register("view", NAME)`."""

    def applies(self, model: Model, data: DataModule) -> bool:
        """Whether the view is possible for this model and data."""
        raise NotImplementedError

    def show(self, model: Any, data: DataModule) -> dict[str, Shown]:
        """Pictures, texts and sounds by name; the main one is named "samples"."""
        raise NotImplementedError


@register("view", "samples")
class SampleView(View):
    """Samples from fixed noise."""

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that sample, and a renderer for the space."""
        return supports(model, SupportsSampling) and has_renderer(model.spec.x)

    def show(self, model: Any, data: DataModule) -> dict[str, Shown]:
        """One picture or text, and the first samples as sound if they are heard, or all as animation if they move."""
        renderer = renderer_of(model.spec.x)
        n, k = renderer.n_samples, model.spec.n_classes
        if model.conditional and k <= MAX_COLUMNS:
            n = n // k * k  # equal numbers per class
        x, columns = sample_all_classes(model, n, make_generator(SEED))
        more = {"sound": renderer.sound(x[:SOUNDS]), "animation": renderer.animation(x, columns)}
        found: dict[str, Shown] = {name: shown for name, shown in more.items() if shown is not None}
        return {"samples": renderer.render(x, columns)} | found


@register("view", "latents")
class LatentView(View):
    """Reconstructions of held-out data, and interpolations between samples."""

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models with latents, and a renderer for the space."""
        able = supports(model, SupportsLatents) or supports(model, SupportsInterpolation)
        return able and has_renderer(model.spec.x)

    def show(self, model: Any, data: DataModule) -> dict[str, Shown]:
        """Up to two pictures."""
        renderer, shown = renderer_of(model.spec.x), dict[str, Shown | None]()
        if supports(model, SupportsLatents):
            x, y = held_out(data, renderer.n_compared)
            shown["reconstructions"] = renderer.compare(x, model.reconstruct(x.to(model.device), y.to(model.device)))
        if supports(model, SupportsInterpolation):
            shown["interpolations"] = renderer.walks(
                model.interpolate(renderer.n_walks, 10, generator=make_generator(SEED, 1))
            )
        return {name: picture for name, picture in shown.items() if picture is not None}


@register("view", "visuals")
class VisualsView(View):
    """Further pictures of a model: its `visuals`."""

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that have them."""
        return supports(model, SupportsVisuals)

    def show(self, model: Any, data: DataModule) -> dict[str, Shown]:
        """One picture per visual."""
        batch = held_out(data, 32).to(model.device)
        return {v.name: self.draw(v) for v in model.visuals(batch)}

    def draw(self, visual: Visual) -> Shown:
        """Draw a visual, with the names of its rows and columns."""
        shown = renderer_of(visual.space).render(visual.tensor, visual.columns)
        if not isinstance(shown, np.ndarray) or not visual.columns:
            return shown
        cells = -(-len(visual.tensor) // visual.columns), visual.columns
        return images.with_names(shown, cells, visual.row_names, visual.column_names)


@torch.no_grad()
def render_samples(model: Model, data: DataModule) -> dict[str, Shown]:
    """Render all views of a model: name -> picture (H, W, 3) uint8, text or sound."""
    training = model.training
    model.eval()
    shown: dict[str, Shown] = {}
    for name in registry.names("view"):
        view: View = registry.build("view", name)
        if view.applies(model, data):
            shown |= view.show(model, data)
    model.train(training)
    return dict(sorted(shown.items(), key=lambda item: item[0] != "samples"))


def held_out(data: DataModule, n: int) -> Batch:
    """Fetch n validation samples, the first in their fixed order."""
    indices = fixed_order(len(data.val[0]))[:n]
    return Batch.of(data.fetch(data.val, indices, make_generator(SEED), train=False))


def sample_all_classes(
    model: Any, n: int, generator: torch.Generator, label: int | None = None, **options: Any
) -> tuple[Tensor, int | None]:
    """Draw samples, and choose the number of columns: one per class for a conditional model."""
    if not model.conditional:
        return model.sample(n, generator=generator, **options), None
    k = model.spec.n_classes
    classes = torch.arange(n) % k if label is None else torch.full((n,), label)
    columns = k if label is None and k <= MAX_COLUMNS else None
    return model.sample(n, condition=classes, generator=generator, **options), columns


@torch.no_grad()
def show(model: Any, n: int = 64, *, seed: int = 0) -> Any:
    """Draw samples as a PIL image, or as text.

    Args:
        model: a trained model.
        n: number of samples.
        seed: of the noise.

    Raises:
        ZooError: a model that generates data without a renderer.
    """
    from PIL import Image

    if supports(model, SupportsTextGeneration) and not has_renderer(model.spec.x):
        return "\n".join(completion.text for completion in model.generate([""] * n, max_new_tokens=200, seed=seed))
    drawn = renderer_of(model.spec.x).render(*sample_all_classes(model, n, make_generator(seed)))
    assert not isinstance(drawn, (Sound, Animation))
    return drawn if isinstance(drawn, str) else Image.fromarray(drawn)


def as_code_block(text: str) -> str:
    """Indent text as a Markdown code block."""
    return "\n".join("    " + line for line in text.splitlines())
