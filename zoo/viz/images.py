"""From tensors to pictures that a person can read: uint8 arrays (height, width, 3), and PNG files."""

import math
import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

Picture = NDArray[np.uint8]  # (height, width, 3)

BACKGROUND = 128  # neither of the colours that empty parts of samples have
BROKEN = (255, 0, 255)  # magenta where a value is not a number
GAP = 4  # pixels between samples, and around them
READABLE = 48  # pixels of the longer side that a sample has at least
MARGIN = 44  # pixels left of the rows for their names


def grid(images: Tensor, columns: int | None = None, gap: int = GAP, at_least: int = READABLE) -> Picture:
    """Images (N, C, H, W) in [0, 1], row by row on a grey ground with a gap around each.

    Small images are enlarged by a whole number, pixel by pixel, until the longer side has `at_least` pixels.
    One channel is grey, three or more are shown by the first three as colours, two by their mean. Values
    outside [0, 1] are clamped and NaN is magenta.

    Args:
        images: what to show.
        columns: samples in a row; None makes the picture about square.
        gap: pixels between samples and around them.
        at_least: pixels of the longer side of a sample.
    """
    if images.ndim != 4 or not len(images):
        raise ValueError(f"a grid needs images (N, C, H, W), at least one, not {tuple(images.shape)}")
    cells = _enlarged(_bytes(images), at_least)  # (N, H, W, 3)
    n, height, width, _ = cells.shape
    columns = min(columns or math.ceil(math.sqrt(n)), n)
    rows = math.ceil(n / columns)
    picture = np.full((gap + rows * (height + gap), gap + columns * (width + gap), 3), BACKGROUND, np.uint8)
    for i, cell in enumerate(cells):
        top, left = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        picture[top : top + height, left : left + width] = cell
    return picture


def comparison_grid(originals: Tensor, reconstructions: Tensor, columns: int = 8, at_least: int = READABLE) -> Picture:
    """Originals (N, C, H, W) in rows marked "data", each above its reconstruction in a row marked "model"."""
    if originals.shape != reconstructions.shape:
        shapes = f"{tuple(originals.shape)} and {tuple(reconstructions.shape)}"
        raise ValueError(f"originals and reconstructions must have the same shape, not {shapes}")
    columns = min(columns, len(originals))
    bands = []
    for above, below in zip(originals.split(columns), reconstructions.split(columns), strict=True):
        rows = [
            _beside(name, grid(_filled(part, columns), columns, at_least=at_least))
            for name, part in (("data", above), ("model", below))
        ]
        bands.append(np.concatenate([rows[0], rows[1][GAP:]]))  # one gap within a pair, three between pairs
        bands.append(np.full((GAP, bands[0].shape[1], 3), BACKGROUND, np.uint8))
    return np.concatenate(bands[:-1])


def interpolation_grid(walks: Tensor, at_least: int = READABLE) -> Picture:
    """Walks (N, steps, C, H, W), one row each from its first step to its last."""
    return grid(walks.flatten(0, 1), columns=walks.shape[1], at_least=at_least)


def density(points: Tensor, extent: float = 2.5, plane: Tensor | None = None, size: int = 384) -> Picture:
    """How densely points (N, D) lie in [-extent, extent]², dark to bright; the second coordinate goes up.

    The cells are larger where there are fewer points. Brightness is the square root of the count relative to
    the fullest cell, so that thin parts show. Points outside are left out; points that are not finite colour
    the frame magenta.

    Args:
        points: with D > 2, what is shown is their first two coordinates, or those along `plane`.
        extent: half the side of the square, in data units; fixed, so that pictures over time can be compared.
        plane: directions (D, 2), for instance from `principal_plane` of the data.
        size: pixels of the side.
    """
    if points.ndim != 2:
        raise ValueError(f"a density needs points (N, D), not {tuple(points.shape)}")
    points = points.detach().float()
    finite = points.isfinite().all(dim=1)
    points = points[finite]
    flat = points @ plane.to(points) if plane is not None else F.pad(points, (0, 1))[:, :2]  # one number lies on y = 0
    bins = next(size // side for side in (2, 4, 8) if (size // side) ** 2 <= 4 * len(flat) or side == 8)
    cell = ((flat + extent) * (bins / (2 * extent))).floor().long()
    cell = cell[((cell >= 0) & (cell < bins)).all(dim=1)]
    counts = torch.bincount(cell[:, 1] * bins + cell[:, 0], minlength=bins * bins).view(bins, bins).flip(0)
    level = (counts / counts.max().clamp(min=1)).sqrt()
    picture = _enlarged(coloured(level)[None], size)[0]
    frame = BACKGROUND if finite.all() else BROKEN
    framed = np.empty((picture.shape[0] + 2 * GAP, picture.shape[1] + 2 * GAP, 3), np.uint8)
    framed[:] = frame
    framed[GAP:-GAP, GAP:-GAP] = picture
    return framed


def principal_plane(points: Tensor) -> Tensor:
    """The two directions (D, 2) in which points (N, D) spread most, their largest entries positive."""
    directions = torch.linalg.svd(points - points.mean(dim=0), full_matrices=False).Vh[:2].T
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    return directions * largest.sign()


def save_png(path: str | os.PathLike[str], picture: Picture) -> None:
    """Write a PNG file, which is there completely or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        Image.fromarray(picture).save(unfinished, format="PNG")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


# -- parts ---------------------------------------------------------------------------------------------------

# Black, blue, red, yellow, white: brightness rises evenly (0, 16, 48, 79 and 100 % in luma), so it reads in
# grey too.
_COLOURS = torch.tensor([(0, 0, 0), (42, 26, 110), (214, 74, 72), (250, 206, 74), (255, 255, 255)]).float()


def coloured(level: Tensor) -> Picture:
    """Levels in [0, 1] (H, W) to colours."""
    place = level.clamp(0, 1) * (len(_COLOURS) - 1)
    below = place.floor().clamp(max=len(_COLOURS) - 2).long()
    mixed = torch.lerp(_COLOURS[below], _COLOURS[below + 1], (place - below)[..., None])
    return mixed.round().to(torch.uint8).numpy()


def _bytes(images: Tensor) -> Picture:
    """(N, C, H, W) in [0, 1] to (N, H, W, 3)."""
    images = images.detach().float().cpu()
    if images.shape[1] == 2:
        images = images.mean(dim=1, keepdim=True)
    images = images[:, :3].expand(-1, 3, -1, -1) if images.shape[1] == 1 else images[:, :3]
    broken = images.isnan().any(dim=1)
    shown = (images.nan_to_num(nan=0.0, posinf=1.0, neginf=0.0).clamp(0, 1) * 255).round().to(torch.uint8)
    pixels = shown.permute(0, 2, 3, 1).contiguous()
    pixels[broken] = torch.tensor(BROKEN, dtype=torch.uint8)
    return pixels.numpy()


def _enlarged(cells: Picture, at_least: int) -> Picture:
    """(N, H, W, 3) enlarged by a whole number until the longer side has so many pixels."""
    times = max(1, math.ceil(at_least / max(cells.shape[1:3])))
    return cells.repeat(times, axis=1).repeat(times, axis=2)


def _filled(part: Tensor, columns: int) -> Tensor:
    """A row that is too short, filled up in the colour of the ground."""
    missing = part.new_full((columns - len(part), *part.shape[1:]), BACKGROUND / 255)
    return torch.cat([part, missing])


def _beside(name: str, row: Picture) -> Picture:
    """A row of a picture with its name on the left."""
    margin = Image.new("RGB", (MARGIN, row.shape[0]), (BACKGROUND,) * 3)
    ImageDraw.Draw(margin).text((MARGIN // 2, row.shape[0] // 2), name, "white", anchor="mm")
    return np.concatenate([np.asarray(margin), row], axis=1)
