"""Translate pictures by a model that learned images given images, from files to files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.core.errors import ConfigError
from zoo.core.spaces import Image
from zoo.data.image.listing import list_files
from zoo.viz.files import write_samples
from zoo.viz.render import renderer_of

BATCH = 64  # pictures that are translated together


def expand_folders(images: Sequence[Path]) -> list[Path]:
    """Replace each folder by its pictures, sorted by name.

    Raises:
        ConfigError: a folder without pictures.
    """
    found: list[Path] = []
    for path in images:
        inside = [path / name for name in list_files(path).files] if path.is_dir() else [path]
        if not inside:
            raise ConfigError(f"--image={path}: a folder without pictures. Give another one, or files.")
        found += inside
    return found


@torch.no_grad()
def translate_images(
    model: Any, images: Sequence[Path], given: Tensor, n: int, settings: dict[str, Any], file: Path
) -> Sequence[Path]:
    """Translate pictures, and write them: n results for each, beside it, or one file each in a new folder.

    Args:
        model: one with the ability `translate`.
        images: files of the pictures, which name the results in a folder.
        given: the pictures (N, *source shape) in [0, 1].
        n: results for each picture.
        settings: of the method, with a generator.
        file: see `edit_images`.
    """
    rows = given.repeat_interleave(n, 0).split(BATCH)
    results = torch.cat([model.translate(part.to(model.device), **settings).cpu() for part in rows])
    target: Image = model.source_space() if settings.get("reverse") else model.spec.image
    renderer = renderer_of(target)
    if file.suffix in ("", ".npy"):
        stems = [path.stem for path in images]
        unique = n == 1 and len(set(stems)) == len(stems)
        return write_samples(results, file, renderer, names=stems if unique else None)
    size = target.height, target.width
    shown = torch.nn.functional.interpolate(given, size, mode="nearest-exact")
    if shown.shape[1] != target.channels:
        shown = shown.mean(1, keepdim=True).expand(-1, target.channels, -1, -1)
    drawn = torch.cat([shown[:, None], results.unflatten(0, (-1, n))], 1).flatten(0, 1)
    return write_samples(drawn, file, renderer, (1 + n) * max(1, 8 // (1 + n)))
