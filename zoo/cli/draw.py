"""Sample from a trained model, to a file or the terminal."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from zoo.core.counted import counted
from zoo.core.errors import ConfigError, printable
from zoo.core.escapes import read_escapes
from zoo.core.spaces import Pair, Tokens
from zoo.data.loader import make_generator
from zoo.data.text.chat import template_of
from zoo.data.text.templates import fill_prompt
from zoo.hub.pretrained import default_output, resolve
from zoo.interop.loading import load
from zoo.io.atomic import write_text
from zoo.models.abilities import SupportsMaskFilling, SupportsSampling, SupportsTextGeneration
from zoo.models.ability import supports
from zoo.models.image_abilities import SupportsImageTranslation, SupportsStyleTransfer
from zoo.models.options import parse_options
from zoo.runs.folder import RunFolder
from zoo.viz.files import check_out, write_samples
from zoo.viz.render import Renderer, has_renderer, renderer_of, sample_all_classes

MAX_NEW_TOKENS = 256  # by default
TEXTS = (".txt", ".jsonl")
IMAGES_PER_PROMPT = 8  # by default


def draw(
    run: str | Path,
    n: int | None = None,
    *,
    options: Sequence[str] = (),
    seed: int = 0,
    out: Path | None = None,
    prompts: Sequence[str] = (),
    device: str = "cpu",
) -> Path | None:
    """Sample from a run's best weights, or a checkpoint, and write the samples; text is printed too.

    Args:
        run: run folder, checkpoint file, or pretrained or published model.
        n: number of samples, or of continuations of each prompt.
        options: KEY=VALUE, keyword-only parameters of the model's `sample`, `generate` or `fill`; `condition=LABEL`.
        seed: equal seeds give equal samples.
        out: .png or .jpg (a grid, or pages), .npy (the numbers), a new folder (one picture each), .txt or .jsonl. A
            format of the data, such as .wav, is possible too. Rows of columns are .csv or .npy. None writes a picture,
            or rows, into the run's `samples/`, or into the current folder for a model by name.
        prompts: texts to continue, sources to translate, or descriptions of images.
        device: device of the model.

    Returns:
        The first file, or the folder; None if text was only printed.

    Raises:
        ConfigError: not a run, an unknown option, or an unknown file format.
    """
    model: Any = load(run, device)
    if not any(supports(model, ability) for ability in (SupportsSampling, SupportsTextGeneration, SupportsMaskFilling)):
        remedy = f"zoo embed {run}` for vectors"
        if supports(model, SupportsImageTranslation):
            remedy = f"zoo edit {run} --translate --image FOLDER` for pictures"
        elif supports(model, SupportsStyleTransfer):
            remedy = f"zoo edit {run} --image FILE --style FILE` for pictures"
        raise ConfigError(f"{run}: {model.registered_name} does not draw samples. Use `{remedy}.")
    if model.spec.text:
        if model.tokenizer is None:
            raise ConfigError(
                f"{run}: tokenizer.json is missing, so {model.registered_name} neither reads nor writes text. "
                f"Put that of the pretrained model into the folder."
            )
        return _generate_text(model, n, seed, out, typed_prompts(model.tokenizer, run, prompts), options)
    name = model.registered_name
    if prompts and not isinstance(model.spec.condition, Tokens):
        raise ConfigError(f"--prompt={prompts[0]}: {name} generates {model.spec.x}, not text. Leave it out.")
    label, rest = parse_label(model, options)
    settings = parse_options(model.sample, rest, name)
    renderer = renderer_of(model.spec.x)
    file = output_file(run, out, f"seed-{seed}", renderer)
    columns: int | None
    with torch.no_grad():
        if prompts:
            columns = n or IMAGES_PER_PROMPT
            texts = [prompt for prompt in prompts for _ in range(columns)]
            settings["condition"] = model.text_condition(texts)
            x = model.sample(len(texts), generator=make_generator(seed), **settings)
        else:
            x, columns = sample_all_classes(model, n or 64, make_generator(seed), label, **settings)
    files = write_samples(x, file, renderer, columns)
    print(*files, sep="\n")
    return files[0]


def parse_label(model: Any, options: Sequence[str]) -> tuple[int | None, list[str]]:
    """Take `condition=LABEL` out of the options: the label, if there is one, and the rest.

    Raises:
        ConfigError: an unconditional model, or not a class label.
    """
    labels = [word.partition("=")[2] for word in options if word.startswith("condition=")]
    name = model.registered_name
    if labels and not model.conditional:
        raise ConfigError(f"condition={labels[0]}: {name} is not conditional. Train with model.conditional=true.")
    if labels and not labels[-1].isdecimal():
        raise ConfigError(f"condition={labels[-1]}: not a class label. Give an integer of at least 0.")
    rest = [word for word in options if not word.startswith("condition=")]
    return int(labels[-1]) if labels else None, rest


def output_file(run: str | Path, out: Path | None, name: str, renderer: Renderer) -> Path:
    """Check `--out`; the default is `samples/NAME.png` in the run, or `.csv` for rows.

    Raises:
        ConfigError: an unknown file format, a folder with files, or `samples` is a link.
    """
    file = out or default_output(run, "samples", f"{name}{renderer.default_suffix}")
    if out is None and file.parent.is_symlink():
        raise ConfigError(f"{file.parent} is a link, and the picture would be written to its target. Use --out.")
    check_out(file, renderer)
    return file


def typed_prompts(tokenizer: Any, run: str | Path, prompts: Sequence[str]) -> list[str]:
    """Read escapes in prompts, and put them into the prompt template of the run's data, or its chat template."""
    place, texts = resolve(run), [read_escapes(prompt) for prompt in prompts]
    template = RunFolder(place if place.is_dir() else place.parent).prompt_template()
    if template or tokenizer.chat_format != "chat":
        return [fill_prompt(template, text) for text in texts]
    return [template_of(tokenizer).render([{"role": "user", "content": text}]) for text in texts]


def _generate_text(
    model: Any, n: int | None, seed: int, out: Path | None, prompts: list[str], words: Sequence[str]
) -> Path | None:
    name = model.registered_name
    if not supports(model, SupportsTextGeneration):
        raise ConfigError(f"model={name}: cannot continue text. Use a language model.")
    renderer = None
    if out is not None and out.suffix not in TEXTS:
        if not has_renderer(model.spec.x):
            raise ConfigError(f"--out={out}: {name} generates text. Use a name that ends in .txt or .jsonl.")
        renderer = renderer_of(model.spec.x)
        check_out(out, renderer, TEXTS)
    mark = model.mark if supports(model, SupportsMaskFilling) else ""
    for prompt in prompts if model.tokenizer.unknown >= 0 else ():
        read = prompt.replace(mark, "")
        unseen = "".join(dict.fromkeys(c for c in read if model.tokenizer.unknown in model.tokenizer.encode(c)))
        if unseen:
            print(f"zoo: --prompt={printable(prompt)}: not in the training text: {printable(unseen)}", file=sys.stderr)
    prompts = [prompt for prompt in prompts for _ in range(n or 1)] or [""] * (n or 64)
    if supports(model, SupportsMaskFilling) and any(model.mark in prompt for prompt in prompts):
        texts = model.fill(prompts, seed=seed, **parse_options(model.fill, words, name))
        print(*(printable(text, keep="\n\t") for text in texts), sep="\n")
        _write_texts(out, prompts, texts, model.tokenizer, renderer)
        return out
    helpers = {key: run for key, _, run in (word.partition("=") for word in words) if key in ("draft", "amateur")}
    words = [word for word in words if word.partition("=")[0] not in helpers]
    options = {"max_new_tokens": MAX_NEW_TOKENS} | parse_options(model.generate, words, name)
    options |= {key: load(run, str(model.device)) for key, run in helpers.items()}
    done = model.generate(prompts, seed=seed, **options)
    begins = (
        [""] * len(prompts) if isinstance(model.spec.x, Pair) else prompts
    )  # a translation does not continue its source
    gaps = [model.tokenizer.gap if begin and not begin[-1].isspace() else "" for begin in begins]
    texts = [f"{begin}{gap}{text.text}" for begin, gap, text in zip(begins, gaps, done, strict=True)]
    for text, end in zip(texts, done, strict=True):
        print(printable(text, keep="\n\t"))
        print(f"-- {counted(len(end.tokens), 'token')}, ended by {end.finish_reason}", file=sys.stderr)
    _write_texts(out, prompts, texts, model.tokenizer, renderer)
    return out


def _write_texts(
    out: Path | None, prompts: Sequence[str], texts: Sequence[str], tokenizer: Any, renderer: Renderer | None
) -> None:
    """Write texts, one after the other, as JSON lines with their prompts, or as their renderer does."""
    if out is None:
        return
    if renderer is not None:
        rows = [torch.tensor(tokenizer.encode(text), dtype=torch.int64) for text in texts]
        write_samples(pad_sequence(rows, True, padding_value=tokenizer.end), out, renderer)
        return
    if out.suffix == ".jsonl":
        found = [dict(prompt=prompt, text=text) for prompt, text in zip(prompts, texts, strict=True)]
        lines = [json.dumps(row, ensure_ascii=False) for row in found]
    else:
        lines = list(texts)
    write_text(out, "\n".join(lines) + "\n")
