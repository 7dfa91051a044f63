"""Model card: a Markdown file with the metadata of Hugging Face's hub, made from a manifest alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from zoo.core.counted import counted
from zoo.core.errors import printable
from zoo.hub.manifest import CARD, PICTURE, TEXTS, Manifest
from zoo.io.atomic import write_text

LICENCES = ("apache-2.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0", "mit")  # identifiers of the hub
TASKS = {  # space -> task of the hub
    "image": "unconditional-image-generation",
    "tokens": "text-generation",
    "pair": "translation",
}
ABILITY_TASKS = {"caption": "image-to-text", "fill": "fill-mask", "embed": "feature-extraction"}  # before the space's
COMMANDS = {  # ability -> how it is used, {} is the name
    "caption": "zoo caption {} --image picture.png",
    "fill": 'zoo sample {} --prompt "... [MASK] ..."',
    "embed": 'zoo embed {} "a text"',
}
ARROWS = {"lower": "↓", "higher": "↑", "reference": "→"}
# Beginnings of metrics, the most telling one first.
HEADLINES = (
    "modes_strict",
    "fd_",
    "bleu",
    "exact_greedy",
    "caption_class",
    "caption_recall1@",
    "hidden_token",
    "nats_per_char",
    "nll",
)
MAX_TEXT = 2000  # characters of generated text


def write_card(manifest: Manifest, folder: Path) -> None:
    """Write README.md, with the samples that are in the folder."""
    texts = folder / TEXTS
    shown = texts.read_text(encoding="utf-8", errors="replace")[:MAX_TEXT] if texts.is_file() else ""
    write_text(folder / CARD, card(manifest, picture=(folder / PICTURE).is_file(), texts=shown))


def card(
    manifest: Manifest, *, picture: bool = False, texts: str = "", use: str | None = None, library: str = "zoo"
) -> str:
    """Make a model card. Equal manifests give equal cards.

    Args:
        manifest: facts and metrics.
        picture: whether a picture of samples is beside the card.
        texts: generated text to show.
        use: Markdown on how to load it; None for a published model.
        library: that loads it.
    """
    parts = [
        f"---\n{yaml.safe_dump(metadata(manifest, library), sort_keys=False, allow_unicode=True)}---",
        f"# {escape(manifest.name)}",
        f"{escape(manifest.summary or manifest.model)}.",
    ]
    if picture:
        parts.append(f"![samples of {escape(manifest.name)}]({PICTURE})")
    if texts:
        shown = printable(texts, keep="\n")
        parts += ["## Samples", "\n".join(f"    {line}" for line in shown.splitlines())]
    parts += ["## Use", usage(manifest) if use is None else use, "## Facts", table(("fact", "value"), facts(manifest))]
    if manifest.command:
        parts += ["The command that trained it:", f"    {printable(manifest.command)}"]
    if manifest.metrics:
        parts += ["## Metrics", metrics(manifest)]
    parts += ["## Limits", limits(manifest)]
    return "\n\n".join(parts) + "\n"


def metadata(manifest: Manifest, library: str = "zoo") -> dict[str, Any]:
    """Metadata of the hub: library, licence, task, tags and metrics."""
    known = manifest.licence.lower()
    found: dict[str, Any] = {"library_name": library, "license": known if known in LICENCES else "other"}
    if manifest.licence and known not in LICENCES:
        found["license_name"] = known.replace(" ", "-")
    if task_of(manifest):
        found["pipeline_tag"] = task_of(manifest)
    found["tags"] = ["zoo", manifest.model, *([manifest.data] if manifest.data else [])]
    data = {"name": manifest.data or "unknown", "type": manifest.data or "unknown"}
    scores = [{"type": name, "value": m["value"]} for name, m in manifest.metrics.items() if finite(m.get("value"))]
    if scores:
        task = {"type": task_of(manifest) or "other"}
        results = [{"task": task, "dataset": data, "metrics": scores}]
        found["model-index"] = [{"name": manifest.name, "results": results}]
    return found


def task_of(manifest: Manifest) -> str:
    """Task of the hub; empty for a model of another kind."""
    special = (task for ability, task in ABILITY_TASKS.items() if ability in manifest.abilities)
    return next(special, TASKS.get(manifest.space, ""))


def usage(manifest: Manifest) -> str:
    """Commands that use a pulled model."""
    name = manifest.name
    lines = [line.format(name) for ability, line in COMMANDS.items() if ability in manifest.abilities]
    if not lines:
        lines = [f"zoo sample {name}" + (' --prompt "..."' if TASKS.get(manifest.space) == "translation" else "")]
    lines += [f"zoo serve {name}", f"python train.py model={manifest.model} init_from={name}  # train it further"]
    shell = "\n".join(lines)
    return (
        f"`{name}` is a folder that `zoo pull` has written, or a name of `zoo list --pretrained`.\n\n"
        f"```bash\n{shell}\n```\n\n```python\nimport zoo\n\nmodel = zoo.load({json.dumps(name)})\n```"
    )


def facts(manifest: Manifest) -> list[tuple[str, str]]:
    """Rows of facts, without those that are not known."""
    rows = {
        "model": f"`{manifest.model}`",
        "data": f"`{manifest.data}`" if manifest.data else "",
        "licence of the data": manifest.licence or "not known",
        "abilities": ", ".join(manifest.abilities),
        "trainable parameters": f"{manifest.parameters:,}",
        "weights": manifest.dtype,
        "trained for": counted(manifest.batches, "batch") if manifest.batches else "",
        "seed": str(manifest.seed),
        "initialised from": manifest.init_from,
        "commit": manifest.commit,
        "versions": ", ".join(f"{package} {number}" for package, number in manifest.versions.items()),
        "hardware": manifest.hardware,
    }
    return [(key, value) for key, value in rows.items() if value]


def metrics(manifest: Manifest) -> str:
    """Table of metrics with their protocol."""
    rows = [
        (
            f"`{name}` {ARROWS.get(str(m.get('better')), '')}",
            number(m.get("value"), m.get("error")),
            number(m.get("real_data_reference")) if m.get("real_data_reference") is not None else "",
        )
        for name, m in sorted(manifest.metrics.items())
    ]
    protocol = ", ".join(f"{key} {value}" for key, value in manifest.protocol.items() if value is not None)
    return (
        f"By `zoo evaluate` ({escape(protocol)}). ↓ lower is better, ↑ higher, → near real data. ± is the standard "
        f"error, or the standard deviation over draws. A name contains its protocol.\n\n"
        + table(("metric", "value", "real data"), rows)
    )


def limits(manifest: Manifest) -> str:
    """Limits of the model, as a list."""
    lines = [
        f"- It was trained on {escape(manifest.data or 'unknown data')} only, and reproduces what these data contain.",
        "- Samples can be close to training data. Metrics of memorisation are in the table, where they were measured.",
    ]
    if manifest.dtype == "float16":
        lines.append("- Weights are stored in half precision and are computed with in single precision.")
    if not manifest.metrics:
        lines.append("- It was not evaluated.")
    return "\n".join(lines)


def table(head: tuple[str, ...], rows: list[Any]) -> str:
    """Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(escape(str(cell)) for cell in line) + " |" for line in lines)


def escape(text: str) -> str:
    """One line of Markdown, without HTML, and without control characters: facts of a run are untrusted."""
    shown = printable(" ".join(text.split()))
    return shown.replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;")


def finite(value: Any) -> bool:
    """Whether a value is a number that JSON and YAML hold."""
    return isinstance(value, (int, float)) and value == value and abs(value) != float("inf")


def number(value: Any, error: Any = None) -> str:
    """Four significant digits, with the error if there is one."""
    if not finite(value):
        return "-"
    return f"{value:.4g}" + (f" ± {error:.2g}" if finite(error) else "")


def overview(manifests: Mapping[str, Manifest]) -> str:
    """Markdown table of several models, with the first of `HEADLINES` that each has."""
    rows = []
    for name, found in manifests.items():
        first = next((key for start in HEADLINES for key in sorted(found.metrics) if key.startswith(start)), None)
        score = found.metrics[first] if first else {}
        measured = f"`{first}` {number(score.get('value'), score.get('error'))}" if first else ""
        size = f"{found.size / 1e6:.2f} MB"
        rows.append((f"`{name}`", found.summary, f"{found.parameters:,}", size, measured, found.licence))
    return table(("name", "model and data", "parameters", "size", "measured", "licence of the data"), rows)
