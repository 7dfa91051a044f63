"""Samples from a trained model, into a file or onto the terminal."""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo.core.errors import ZooError, printable
from zoo.core.spaces import Pair
from zoo.data.loader import make_generator
from zoo.interop.loading import load
from zoo.io.atomic import write_text
from zoo.models.abilities import SupportsMaskFilling, SupportsTextGeneration
from zoo.models.base import GenerativeModel
from zoo.runs.checkpoint import find_checkpoint
from zoo.viz.images import save_png
from zoo.viz.render import sample_all_classes, show


@dataclass(frozen=True)
class Decoding:
    """How text is continued; the names are those of `zoo.nn.samplers.autoregressive`, and None is the model's own choice."""

    max_new_tokens: int = 256
    temperature: float | None = None
    top_k: int = 0
    top_p: float | None = None
    repetition_penalty: float = 1.0
    beams: int = 1
    stop: tuple[str, ...] = ()


def sample(
    run: Path,
    n: int,
    *,
    seed: int = 0,
    out: Path | None = None,
    label: int | None = None,
    prompts: list[str] | None = None,
    decoding: Decoding | None = None,
    device: str = "cpu",
) -> Path | None:
    """Draw from a run's best weights (or a checkpoint) and write what came out; text is printed too.

    Args:
        run: run folder or checkpoint file.
        n: number of samples; for text, of continuations where no prompts are given.
        seed: equal seeds give equal samples.
        out: .png (a grid), .npy (the numbers) or .txt; None writes a picture into the run's `samples/`.
        label: class of all samples; None lets a conditional model go through its classes.
        prompts: texts to continue, or sources of what a model of pairs writes.
        decoding: how.
        device: where to run.

    Returns:
        The file written, or None where text was only printed.

    Raises:
        ZooError: no such run, a label or prompt for a model that takes none, an unknown kind of file.
    """
    model = load(run, device)
    if model.spec.text:
        return _generate_text(model, n, seed, out, prompts or [], decoding or Decoding())
    if prompts:
        raise ZooError(
            f"--prompt is for text, but this {model.registered_name} makes {model.spec.x.registered_name} samples."
        )
    if label is not None and not model.conditional:
        raise ZooError(
            f"--label needs a conditional model, and this {model.registered_name} is not one (see cgan, cvae)."
        )
    with torch.no_grad():
        x, columns = sample_all_classes(model, n, make_generator(seed), label)
    if out is None:
        out = find_checkpoint(run).parent / "samples" / f"seed-{seed}.png"
        if out.parent.is_symlink():
            raise ZooError(f"{out.parent} is a link, and the picture would go where it points: name a place by --out.")
    if out.suffix == ".npy":
        np.save(out, x.cpu().numpy())
    elif out.suffix == ".png":
        out.parent.mkdir(parents=True, exist_ok=True)
        save_png(out, show(model, x, columns))
    else:
        raise ZooError(f"--out {out} must end in .png (a picture) or .npy (the numbers).")
    print(out)
    return out


def _generate_text(
    model: GenerativeModel, n: int, seed: int, out: Path | None, prompts: list[str], decoding: Decoding
) -> Path | None:
    if not isinstance(model, SupportsTextGeneration):
        raise ZooError(f"model {model.registered_name} cannot continue text.")
    if out is not None and out.suffix != ".txt":
        raise ZooError(f"--out {out} must end in .txt: this model writes text.")
    options: dict[str, Any] = {k: v for k, v in asdict(decoding).items() if v is not None}
    prompts = prompts or [""] * n
    if isinstance(model, SupportsMaskFilling) and any(model.mark in prompt for prompt in prompts):
        how = {k: v for k, v in options.items() if k in ("temperature", "top_k", "top_p")}
        texts = model.fill(prompts, seed=seed, **how)
        print(*(printable(text, keep="\n\t") for text in texts), sep="\n")
        if out is not None:
            write_text(out, "\n".join(texts) + "\n")
        return out
    done = model.generate(prompts, seed=seed, **options)
    begins = [""] * len(prompts) if isinstance(model.spec.x, Pair) else prompts  # what answers a source stands alone
    texts = [f"{prompt}{text.text}" for prompt, text in zip(begins, done, strict=True)]
    for text, end in zip(texts, done, strict=True):
        print(printable(text, keep="\n\t"))
        print(f"-- {len(end.tokens)} tokens, ended by {end.finish_reason}", file=sys.stderr)
    if out is not None:
        write_text(out, "\n".join(texts) + "\n")
    return out
