"""Edit pictures by a trained model, from files to files."""

import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.cli.draw import output_file, parse_label
from zoo.cli.translate_images import expand_folders, translate_images
from zoo.core.errors import ConfigError, DataError
from zoo.core.spaces import Image, Table
from zoo.data.image.decode import probe, read
from zoo.data.loader import make_generator
from zoo.interop.loading import load
from zoo.models.ability import ABILITIES
from zoo.models.options import parse_options
from zoo.viz.files import write_samples
from zoo.viz.render import renderer_of

HOLE = 0.5  # brightness of the part that changes, in pictures of the input
CHANNELS = (1, 3, 4)  # that a file has: grey, colour, colour with transparency


def edit_images(
    run: str | Path,
    images: Sequence[Path],
    *,
    mask: Path | None = None,
    super_resolve: int | None = None,
    colorize: bool = False,
    interpolate: int | None = None,
    translate: bool = False,
    style: Path | None = None,
    n: int | None = None,
    options: Sequence[str] = (),
    seed: int = 0,
    out: Path | None = None,
    device: str = "cpu",
) -> Path:
    """Edit pictures by a run's best weights, or a checkpoint: variations, unless one of the other changes is chosen.

    Args:
        run: run folder, checkpoint file, or pretrained or published model.
        images: files of any size, or folders of them. They are scaled until they just cover the size of the model's
            images, and cropped at the centre.
        mask: inpaint; a file of equal size, white where the picture changes.
        super_resolve: draw so many times the resolution of the pictures.
        colorize: draw the colours of grey pictures.
        interpolate: number of pictures from the first to the second one, through the latent.
        translate: draw the images of another kind that the model learned to give for such pictures.
        style: a file whose style the pictures get.
        n: results for each picture, 4 by default; translations and styles have 1 by default, and interpolation has one.
        options: KEY=VALUE, keyword-only parameters of the model's method; `condition=LABEL`.
        seed: equal seeds give equal results.
        out: .png or .jpg (each input beside its results), .npy (the results), or a new folder (one picture each). None
            writes a picture into the run's `samples/`.
        device: device of the model.

    Returns:
        The first file, or the folder.

    Raises:
        ConfigError: two changes at once, a model without the ability, an unknown option or file format.
        DataError: a damaged picture, or a mask of another size.
    """
    chosen = {"inpaint": mask, "super_resolve": super_resolve, "colorize": colorize, "interpolate": interpolate}
    chosen |= {"translate": translate, "stylize": style}
    images, n = expand_folders(images), n or (1 if translate or style else 4)
    names = [name for name, value in chosen.items() if value] or ["edit"]
    if len(names) > 1:
        raise ConfigError(f"{' and '.join(names)}: two changes at once. Apply one, then the other to its result.")
    (name,) = names
    model: Any = load(run, device)
    method = find_method(model, name)
    label, rest = parse_label(model, options)
    settings = parse_options(method, rest, model.registered_name)
    renderer = renderer_of(model.spec.x)
    file = output_file(run, out, f"{name}-seed-{seed}", renderer)

    if translate:
        read_as = model.source_space(**{k: v for k, v in settings.items() if k == "reverse"})
        small = read_as.height, read_as.width
        x = torch.stack([read_picture(path, "--image", read_as, small, read_as.channels) for path in images])
        files = translate_images(model, images, x, n, settings | {"generator": make_generator(seed)}, file)
        print(*files, sep="\n")
        return files[0]
    space = model.spec.image
    size = space.height, space.width
    if super_resolve and (size[0] % super_resolve or size[1] % super_resolve):
        raise ConfigError(
            f"--super-resolve={super_resolve}: does not divide the {size[1]}x{size[0]} pixels of the model's images. "
            "Use a divisor of both."
        )
    factor = super_resolve or 1
    small = size[0] // factor, size[1] // factor
    x = torch.stack([read_picture(path, "--image", space, small, 1 if colorize else space.channels) for path in images])
    x = x.to(model.device)
    generator, rows = make_generator(seed), x.repeat_interleave(n, 0)
    settings |= {"generator": generator}
    if interpolate:
        if len(images) != 2:
            raise ConfigError(f"--interpolate={interpolate}: between {len(images)} pictures. Give --image twice.")
        settings |= {"between": x}
    if label is not None:
        settings["condition"] = torch.full((1 if interpolate else len(rows),), label, device=model.device)
    with torch.no_grad():
        if mask is not None:
            hole = read_mask(mask, images, size).to(model.device)
            given, results = [x, x.masked_fill(hole, HOLE)], method(rows, hole[None], **settings)
        elif interpolate:
            given, results = [], method(1, interpolate, **settings).flatten(0, 1)
        elif style is not None:
            wanted = read_picture(style, "--style", space, size, space.channels).to(model.device)[None]
            given, results = [x, wanted.expand_as(x)], method(rows, wanted.expand_as(rows), **settings)
            print(f"zoo: style in the features of {model.style_source}", file=sys.stderr)
        else:
            shown = x.repeat_interleave(factor, -2).repeat_interleave(factor, -1).expand(-1, space.channels, -1, -1)
            given, results = [shown], method(rows, **settings)
    if file.suffix in ("", ".npy"):
        columns, drawn = None, results
    else:
        columns = len(given) + (interpolate or n)
        drawn = torch.cat([*(part[:, None] for part in given), results.unflatten(0, (-1, interpolate or n))], 1)
        drawn = drawn.flatten(0, 1)
    files = write_samples(drawn, file, renderer, columns)
    print(*files, sep="\n")
    return files[0]


def find_method(model: Any, name: str) -> Any:
    """The method of an ability.

    Raises:
        ConfigError: the model learns other data than images, or lacks the ability.
    """
    if not isinstance(model.spec.x, Image) or model.spec.image.channels not in CHANNELS:
        raise ConfigError(f"model={model.registered_name}: learns {model.spec.x}. {instead_of_pictures(model)}.")
    able = name in model.abilities
    if able and name == "interpolate":  # between given data
        able = "between" in inspect.signature(model.interpolate).parameters
    if not able:
        between = " between pictures" if name == "interpolate" else ""
        flags = {"translate": "--translate", "stylize": "--style FILE"}
        instead = " or ".join(flag for ability, flag in flags.items() if ability in model.abilities)
        raise ConfigError(
            f"model={model.registered_name}: cannot {ABILITIES[name].label}{between}. "
            f"{f'Add {instead}, or use' if instead else 'Use'} a model that does: "
            "`zoo list --markdown` shows their abilities."
        )
    return getattr(model, name)


def instead_of_pictures(model: Any) -> str:
    """The way to edit data other than pictures."""
    mark = getattr(model, "mark", "[MASK]")
    ways = {
        "predict_frames": "Continue videos by --continue K",
        "fill": f'Fill in masks by `zoo sample RUN --prompt "a {mark} text"`',
        "generate": 'Continue a text by `zoo sample RUN --prompt "TEXT"`',
        "forecast": "Continue series by `zoo forecast`",
    }
    if isinstance(model.spec.x, Table) and "inpaint" in model.abilities:
        return "Fill in rows by --rows FILE"
    return next((way for ability, way in ways.items() if ability in model.abilities), "Use a model of images")


def read_picture(path: Path, option: str, space: Image, size: tuple[int, int], channels: int) -> Tensor:
    """Read a picture in the levels of the data, (channels, *size) in [0, 1], and report a change of its size.

    Raises:
        DataError: not a picture that is safe to read.
    """
    try:
        height, width, _ = probe(path)
        x = read(path, size, channels).float() / 255
    except FileNotFoundError:
        raise
    except Exception as error:  # of Pillow, on damaged files
        raise DataError(f"{option}={path}: {str(error).rstrip('.')}. Give a picture, such as a PNG file.") from None
    if (height, width) != size:
        print(
            f"zoo: {path}: {width}x{height} pixels, scaled to cover {size[1]}x{size[0]} and cropped at the centre",
            file=sys.stderr,
        )
    return (x * (space.levels - 1)).round() / (space.levels - 1)


def read_mask(path: Path, images: Sequence[Path], size: tuple[int, int]) -> Tensor:
    """Read a mask, bool (1, *size), fitted as its pictures are; white is True.

    Raises:
        DataError: it differs in size from a picture, or marks nothing.
    """
    x = read_picture(path, "--mask", Image(1, *size, levels=2), size, 1)
    height, width, _ = probe(path)
    for image in images:
        if (found := probe(image)[:2]) != (height, width):
            raise DataError(
                f"--mask={path}: {width}x{height} pixels, but {image} has {found[1]}x{found[0]}. Make both equal."
            )
    if not x.any():
        raise DataError(f"--mask={path}: no white pixels, so nothing would change. White marks the part to draw.")
    return x > 0
