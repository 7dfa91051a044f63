"""Continue videos by a trained model, from files to files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.cli.draw import output_file, parse_label
from zoo.cli.translate_images import expand_folders
from zoo.core.counted import counted
from zoo.core.errors import ConfigError, DataError
from zoo.data.loader import make_generator
from zoo.data.video.video_file import read_video
from zoo.interop.loading import load
from zoo.models.ability import supports
from zoo.models.image_abilities import SupportsFramePrediction
from zoo.models.options import parse_options
from zoo.viz.files import write_samples
from zoo.viz.render import renderer_of


def continue_videos(
    run: str | Path,
    videos: Sequence[Path],
    frames: int,
    *,
    n: int = 4,
    options: Sequence[str] = (),
    seed: int = 0,
    out: Path | None = None,
    device: str = "cpu",
) -> Path:
    """Draw the frames that follow the first ones of videos.

    Args:
        run: run folder, checkpoint file, or pretrained or published model of videos.
        videos: files, or folders of them. Frames are scaled to cover the size of the model's, and cropped.
        frames: number of first frames that are given.
        n: results for each video.
        options: KEY=VALUE, keyword-only parameters of `predict_frames`; `condition=LABEL`.
        seed: equal seeds give equal results.
        out: a GIF file, a strip of frames (.png .jpg), .npy, or a new folder with one GIF each. None writes a GIF into
            the run's `samples/`.
        device: device of the model.

    Returns:
        The file, or the folder.

    Raises:
        ConfigError: a model without the ability, an unknown option or file format.
        DataError: a damaged video, or one of fewer frames.
    """
    model: Any = load(run, device)
    if not supports(model, SupportsFramePrediction):
        raise ConfigError(
            f"--continue={frames}: {model.registered_name} does not continue {model.spec.x}. Leave it out."
        )
    if frames >= model.spec.x.frames:
        raise ConfigError(f"--continue={frames}: clips of the model have {model.spec.x.frames} frames. Give fewer.")
    label, rest = parse_label(model, options)
    settings = parse_options(model.predict_frames, rest, model.registered_name)
    renderer = renderer_of(model.spec.x)
    file = output_file(run, out, f"continue-seed-{seed}", renderer)
    given = torch.stack([first_frames(path, model.spec.x, frames) for path in expand_folders(videos)])
    rows = given.repeat_interleave(n, 0).to(model.device)
    if label is not None:
        settings["condition"] = torch.full((len(rows),), label, device=model.device)
    with torch.no_grad():
        found = model.predict_frames(rows, generator=make_generator(seed), **settings)
    files = write_samples(found, file, renderer, n)
    print(*files, sep="\n")
    return files[0]


def first_frames(path: Path, space: Any, frames: int) -> Tensor:
    """The first frames of a file on the levels of a space of videos, (frames, C, H, W).

    Raises:
        DataError: not a video, or one of fewer frames.
    """
    try:
        x = read_video(path, (space.height, space.width), space.channels, most=frames)
    except (FileNotFoundError, ConfigError):
        raise
    except Exception as error:  # of the decoder, on damaged files
        raise DataError(f"--image={path}: {str(error).rstrip('.')}. Give a video, such as a GIF file.") from None
    if len(x) < frames:
        raise DataError(f"--image={path}: {counted(len(x), 'frame')}, but --continue={frames}. Give a longer video.")
    return (x.float() / 255 * (space.levels - 1)).round() / (space.levels - 1)
