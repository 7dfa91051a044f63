"""Render samples as pictures or text."""

from typing import Any

import torch
from torch import Tensor

from zoo.core.spaces import Image, Pair
from zoo.data.base import DataModule
from zoo.data.loader import make_generator
from zoo.data.text.instructions import PromptResponseData
from zoo.models.abilities import SupportsInterpolation, SupportsLatents, SupportsTextGeneration
from zoo.models.base import GenerativeModel
from zoo.viz import images
from zoo.viz.text import reading

SEED = 20_000_000  # of the noise that is the same in every picture of every run


@torch.no_grad()
def render_samples(model: GenerativeModel, data: DataModule) -> dict[str, images.Picture | str]:
    """Everything a model can show of itself: name -> picture (H, W, 3) uint8, or text.

    The model's mode (train or eval) is left as found.
    """
    training = model.training
    model.eval()
    shown: dict[str, images.Picture | str] = {}
    if isinstance(model, SupportsTextGeneration) and model.spec.text:
        if isinstance(model.spec.x, Pair):
            shown["samples"] = show_pairs(model, data)
        else:
            asked = data.pairs("val")[:6] if isinstance(data, PromptResponseData) else [("", "")] * 6
            shown["samples"] = show_text(model, [prompt for prompt, _ in asked])
        shown |= reading(model, data)
    else:
        n = {"image": 60 if model.conditional else 64, "vector": 2500}[model.spec.x.registered_name]
        shown["samples"] = picture(model, *sample_all_classes(model, n, make_generator(SEED)))
    if isinstance(model.spec.x, Image):
        if isinstance(model, SupportsLatents):
            x, y = data.fetch(data.val, torch.arange(min(32, len(data.val[0]))), make_generator(SEED), train=False)
            again = model.reconstruct(x.to(model.device), y.to(model.device))
            shown["reconstructions"] = images.comparison_grid(x, again)
        if isinstance(model, SupportsInterpolation):
            shown["interpolations"] = images.interpolation_grid(
                model.interpolate(8, 10, generator=make_generator(SEED, 1))
            )
    model.train(training)
    return shown


def sample_all_classes(
    model: GenerativeModel, n: int, generator: torch.Generator, label: int | None = None, **options: Any
) -> tuple[Tensor, int | None]:
    """Samples, and in how many columns to show them: a conditional model gets a column for each class."""
    if not model.conditional:
        return model.sample(n, generator=generator, **options), None
    k = model.spec.n_classes
    classes = torch.arange(n) % k if label is None else torch.full((n,), label)
    x = model.sample(n, condition=classes, generator=generator, **options)
    return x, k if label is None and k <= 16 else None


def picture(model: GenerativeModel, x: Tensor, columns: int | None = None) -> images.Picture:
    """Samples as one picture: a grid of images, or the density of points."""
    return images.grid(x, columns) if isinstance(model.spec.x, Image) else images.density(x.cpu())


@torch.no_grad()
def show(model: GenerativeModel, n: int = 64, *, seed: int = 0) -> Any:
    """Samples to look at: a PIL image, or a text.

    Args:
        model: a trained model.
        n: number of samples.
        seed: of the noise.
    """
    from PIL import Image as PILImage

    if model.spec.text:
        return show_text(model, [""] * n)
    return PILImage.fromarray(picture(model, *sample_all_classes(model, n, make_generator(seed))))


def show_text(model: Any, prompts: list[str], tokens: int = 200) -> str:
    """Prompts, which may be empty, and what follows them."""
    done = model.generate(prompts, max_new_tokens=tokens, seed=SEED)
    texts = [prompt + text.text for prompt, text in zip(prompts, done, strict=True)]
    return f"\n{'-' * 78}\n".join(texts)


def show_pairs(model: Any, data: Any, n: int = 8) -> str:
    """The first validation sources, their targets, and what the model writes, likeliest token by token."""
    pairs = data.pairs("val")[:n]
    done = model.generate([source for source, _ in pairs], temperature=0, seed=SEED)
    shown = [
        f"source  {source}\ntarget  {target}\nmodel   {written.text}"
        for (source, target), written in zip(pairs, done, strict=True)
    ]
    return f"\n{'-' * 78}\n".join(shown)


def as_code_block(text: str) -> str:
    """Text as a block that Markdown leaves alone."""
    return "\n".join("    " + line for line in text.splitlines())
