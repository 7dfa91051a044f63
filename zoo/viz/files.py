"""Write samples to files: pictures, pages of pictures, one file for each sample, rows, or numbers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from zoo.core.errors import ConfigError
from zoo.io.atomic import atomic_replace, write_text
from zoo.viz.animation import Animation, save_gif
from zoo.viz.images import PICTURES, save_picture
from zoo.viz.render import Renderer, Shown
from zoo.viz.sound import Sound, save_wav

WAV = ".wav"


def check_out(out: Path, renderer: Renderer, texts: Sequence[str] = ()) -> None:
    """Check the name of an output before samples are drawn.

    Args:
        out: file or folder.
        renderer: of the samples.
        texts: further suffixes, of formats that the caller writes.

    Raises:
        ConfigError: an unknown format, a folder that is not empty, or samples that are drawn together only.
    """
    if out.suffix == "" or out.is_dir():
        if not renderer.has_singles:
            raise ConfigError(f"--out={out}: these samples are drawn together only. Use .png or .npy.")
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ConfigError(f"--out={out}: exists already. Choose a new folder.")
    elif renderer.default_suffix not in (*PICTURES, *renderer.formats):
        if out.suffix.lower() not in (".npy", renderer.default_suffix, *texts):
            names = ", ".join((renderer.default_suffix, *texts))
            raise ConfigError(f"--out={out}: an unknown file format. Use {names} or .npy.")
    elif out.suffix.lower() not in (".npy", *PICTURES, *renderer.formats, *texts):
        names, others = ", ".join(PICTURES), "".join(f"{suffix}, " for suffix in (*renderer.formats, *texts))
        raise ConfigError(
            f"--out={out}: an unknown file format. Use {names} (a picture), {others}.npy (an array), or a new folder."
        )


def write_samples(
    x: Tensor, out: Path, renderer: Renderer, columns: int | None = None, names: Sequence[str] | None = None
) -> Sequence[Path]:
    """Write samples (N, *shape) to one file or several pages, or to a folder with one file for each.

    Args:
        x: samples.
        out: file or folder, see `check_out`.
        renderer: of their space.
        columns: of a picture.
        names: of the files in a folder, without suffix; None numbers them.

    Returns:
        The files; for a folder, the folder.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix.lower() == ".npy":
        with atomic_replace(out) as draft, draft.open("wb") as file:
            np.save(file, x.cpu().numpy())
        return [out]
    if out.suffix == "":
        digits, suffix = len(str(len(x) - 1)), (*renderer.formats, ".png")[0]
        for number, sample in enumerate(x):
            path = out / f"{names[number] if names else f'{number:0{digits}}'}{suffix}"
            if renderer.formats:
                write_format(sample[None], path, renderer)
            else:
                save_picture(path, renderer.single(sample))
        return [out]
    if out.suffix.lower() in renderer.formats:
        write_format(x, out, renderer)
        return [out]
    if out.suffix.lower() == renderer.default_suffix and isinstance(text := renderer.render(x), str):
        write_text(out, text)
        return [out]
    pages = x.split(renderer.per_page or len(x))
    files = [out] if len(pages) == 1 else [out.with_stem(f"{out.stem}-{n + 1:03}") for n in range(len(pages))]
    for page, path in zip(pages, files, strict=True):
        save_picture(path, renderer.render(page, columns))  # type: ignore[arg-type]
    return files


def write_format(x: Tensor, file: Path, renderer: Renderer) -> None:
    """Write samples (N, *shape) to one file in a format of their renderer."""
    sound = renderer.sound(x) if file.suffix.lower() == WAV else None
    if sound is None:
        renderer.write(x, file)
    else:
        save_wav(file, sound)


def save_shown(stem: Path, shown: Shown) -> Path:
    """Write a picture, text, sound or animation to the name with a suffix, and return the file."""
    if isinstance(shown, Animation):
        file = stem.with_name(f"{stem.name}.gif")
        save_gif(file, shown)
    elif isinstance(shown, Sound):
        file = stem.with_name(f"{stem.name}{WAV}")
        save_wav(file, shown)
    elif isinstance(shown, str):
        file = stem.with_name(f"{stem.name}{getattr(shown, 'suffix', '.txt')}")
        write_text(file, shown)
    else:
        file = stem.with_name(f"{stem.name}.png")
        save_picture(file, shown)
    return file
