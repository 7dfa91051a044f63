"""Convert tensors to pictures: uint8 arrays (height, width, 3), and PNG files."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from zoo.io.atomic import atomic_replace

Picture = NDArray[np.uint8]  # (height, width, 3)

BACKGROUND = 128  # differs from black and white, which samples contain
BROKEN = (255, 0, 255)  # magenta where a value is not a number
GAP = 4  # pixels between and around samples
READABLE = 48  # minimum pixels of a sample's longer side
MARGIN = 44  # pixels of the row names
HEADER = 16  # pixels of the column names


def grid(images: Tensor, columns: int | None = None, gap: int = GAP, at_least: int = READABLE) -> Picture:
    """Arrange images (N, C, H, W) in [0, 1] in rows, on grey.

    Small images are enlarged by an integer factor until the longer side has `at_least` pixels. One channel is grey, of
    two the mean is shown, of more the first three as RGB. Values outside [0, 1] are clamped; NaN is magenta.

    Args:
        images: samples.
        columns: samples per row; None makes the picture about square.
        gap: pixels between and around samples.
        at_least: minimum pixels of a sample's longer side.
    """
    if images.ndim != 4 or not len(images):
        raise ValueError(f"a grid needs images (N, C, H, W), at least one, not {tuple(images.shape)}")
    cells = _enlarged(pixels_of(images), at_least)  # (N, H, W, 3)
    n, height, width, _ = cells.shape
    columns = min(columns or math.ceil(math.sqrt(n)), n)
    rows = math.ceil(n / columns)
    picture = np.full((gap + rows * (height + gap), gap + columns * (width + gap), 3), BACKGROUND, np.uint8)
    for i, cell in enumerate(cells):
        top, left = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        picture[top : top + height, left : left + width] = cell
    return picture


def comparison_grid(originals: Tensor, reconstructions: Tensor, columns: int = 8, at_least: int = READABLE) -> Picture:
    """Arrange originals (N, C, H, W) in rows named "data", each above its reconstruction in a row named "model"."""
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


def interpolation_grid(x: Tensor, at_least: int = READABLE) -> Picture:
    """Arrange interpolations (N, steps, C, H, W) in rows."""
    return grid(x.flatten(0, 1), columns=x.shape[1], at_least=at_least)


def with_names(picture: Picture, cells: tuple[int, int], rows: Sequence[str], columns: Sequence[str]) -> Picture:
    """Write names to the left of a grid's rows and above its columns, again from the first after the last.

    Args:
        picture: of a `grid`.
        cells: number of rows and columns.
        rows: names of rows; () leaves them out.
        columns: names of columns.
    """
    font = ImageFont.load_default(size=11)
    left = max([MARGIN, *(math.ceil(font.getlength(name)) + 2 * GAP for name in rows)]) if rows else 0
    top = HEADER if columns else 0
    height, width, _ = picture.shape
    whole = Image.new("RGB", (left + width, top + height), (BACKGROUND,) * 3)
    whole.paste(Image.fromarray(picture), (left, top))
    draw = ImageDraw.Draw(whole)
    for i in range(cells[0] if rows else 0):
        middle = top + round(GAP / 2 + (i + 0.5) * (height - GAP) / cells[0])
        draw.text((left // 2, middle), rows[i % len(rows)], "white", font, anchor="mm")
    for i in range(cells[1] if columns else 0):
        middle = left + round(GAP / 2 + (i + 0.5) * (width - GAP) / cells[1])
        draw.text((middle, top // 2), columns[i % len(columns)], "white", font, anchor="mm")
    return np.asarray(whole)


def density(points: Tensor, extent: float = 2.5, plane: Tensor | None = None, size: int = 384) -> Picture:
    """Draw a two-dimensional histogram of points (N, D) in [-extent, extent]², dark to bright, y upwards.

    Brightness is the square root of the relative count, so that sparse regions are visible. Fewer points make larger
    cells. Points outside are omitted; the frame is magenta if points are not finite.

    Args:
        points: for D > 2, the first two coordinates are drawn, or those along `plane`.
        extent: half the side of the square in data units; fixed, so that pictures are comparable.
        plane: directions (D, 2), such as `principal_plane` of the data.
        size: side in pixels.
    """
    if points.ndim != 2:
        raise ValueError(f"a density needs points (N, D), not {tuple(points.shape)}")
    points = points.detach().float()
    finite = points.isfinite().all(dim=1)
    points = points[finite]
    flat = points @ plane.to(points) if plane is not None else F.pad(points, (0, 1))[:, :2]  # y = 0 for D = 1
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
    """First two principal components (D, 2) of points (N, D), their largest entries positive."""
    directions = torch.linalg.svd(points - points.mean(dim=0), full_matrices=False).Vh[:2].T
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    return directions * largest.sign()


PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def save_png(path: str | os.PathLike[str], picture: Picture) -> None:
    """Write a PNG file atomically."""
    save_picture(Path(path), picture)


def save_picture(path: Path, picture: Picture) -> None:
    """Write a picture atomically, in the format of the name's suffix (`PICTURES`)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_replace(path) as draft:
        Image.fromarray(picture).save(draft, format=PICTURES[path.suffix.lower()])


# -- parts ---------------------------------------------------------------------------------------------------

# Black, blue, red, yellow, white: luma rises monotonically (0, 16, 48, 79, 100 %), also readable in grey.
_COLOURS = torch.tensor([(0, 0, 0), (42, 26, 110), (214, 74, 72), (250, 206, 74), (255, 255, 255)]).float()


def coloured(level: Tensor) -> Picture:
    """Map levels in [0, 1] (H, W) to colours."""
    place = level.clamp(0, 1) * (len(_COLOURS) - 1)
    below = place.floor().clamp(max=len(_COLOURS) - 2).long()
    mixed = torch.lerp(_COLOURS[below], _COLOURS[below + 1], (place - below)[..., None])
    return mixed.round().to(torch.uint8).numpy()


def pixels_of(images: Tensor) -> Picture:
    """Convert images (N, C, H, W) in [0, 1] to bytes (N, H, W, 3); see `grid`."""
    pixels = bytes_of(images)
    return pixels if pixels.shape[3] == 3 else pixels.repeat(3, axis=3)


def bytes_of(images: Tensor) -> NDArray[np.uint8]:
    """Convert images (N, C, H, W) in [0, 1] to bytes (N, H, W, 1), or (N, H, W, 3) for colours and NaN; see `grid`."""
    images = images.detach().float().cpu()
    images = images.mean(dim=1, keepdim=True) if images.shape[1] == 2 else images[:, :3]
    found = images.numpy()  # its operations begin sooner than torch's, which small pictures notice
    found = np.minimum(np.maximum(found, 0), 1)  # a NaN stays
    found *= 255
    np.rint(found, out=found)
    if not np.isnan(found.sum()):
        return np.ascontiguousarray(found.astype(np.uint8).transpose(0, 2, 3, 1))
    broken = np.isnan(found)
    whole = np.nan_to_num(found, nan=0.0).astype(np.uint8)
    pixels = np.broadcast_to(whole, (len(whole), 3, *whole.shape[2:])).transpose(0, 2, 3, 1).copy()
    pixels[broken.any(axis=1)] = BROKEN
    return pixels


def _enlarged(cells: Picture, at_least: int) -> Picture:
    """Enlarge (N, H, W, 3) by an integer factor until the longer side has `at_least` pixels."""
    times = max(1, math.ceil(at_least / max(cells.shape[1:3])))
    return cells.repeat(times, axis=1).repeat(times, axis=2)


def _filled(part: Tensor, columns: int) -> Tensor:
    """Pad a short row with the background."""
    missing = part.new_full((columns - len(part), *part.shape[1:]), BACKGROUND / 255)
    return torch.cat([part, missing])


def _beside(name: str, row: Picture) -> Picture:
    """Add a name to the left of a row."""
    margin = Image.new("RGB", (MARGIN, row.shape[0]), (BACKGROUND,) * 3)
    ImageDraw.Draw(margin).text((MARGIN // 2, row.shape[0] // 2), name, "white", anchor="mm")
    return np.concatenate([np.asarray(margin), row], axis=1)
