"""Train and calibrate the classifier whose features sample metrics use."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from zoo.config.compose import compose, to_plain
from zoo.core import registry
from zoo.core.errors import ZooError
from zoo.core.space import PixelSpace
from zoo.core.spaces import Audio
from zoo.data.base import DataModule

WIDTH = 116  # of the table, also where the terminal is narrower


def train_feature_classifier(overrides: Sequence[str] = (), out: Path | None = None) -> Path:
    """Train on the training split, calibrate on the validation split; write weights and card, and print the card.

    Args:
        overrides: `data=NAME` and `data.KEY=VALUE`, as for `zoo train`.
        out: weights file; None for the cache of `zoo.evaluation.features.base.features_for`. The card is next to it, as
            .json.

    Returns:
        The weights file.

    Raises:
        ZooError: other data than images, videos and sounds with labels; nothing is written.
    """
    from zoo.evaluation.features.base import STACKED, ClassifierFeatures, cached, make, shipped_for
    from zoo.evaluation.features.calibration import calibrate, size
    from zoo.evaluation.features.classifier import write_card

    for override in overrides:
        if override.partition("=")[0].partition(".")[0] != "data":
            raise ZooError(f"{override}: not a setting of data. Use data=NAME and data.KEY=VALUE.")
    if out is not None and out.suffix != ".safetensors":
        raise ZooError(f"--out={out}: not a .safetensors file. Name it {out.with_suffix('.safetensors').name}.")
    cfg = compose(*overrides)
    data: DataModule = registry.build("data", to_plain(cfg.data), where="data")
    spec = data.spec
    if spec.name in STACKED:
        single = STACKED[spec.name]
        raise ZooError(f"data={spec.name}: uses the features of {single} per channel. Train with data={single}.")
    if not isinstance(spec.x, (PixelSpace, Audio)) or not spec.n_classes:
        raise ZooError(f"data={spec.name}: not images, videos or sounds with labels. Use features=pixels.")
    data.setup()
    size(data)  # an error for too few images
    path = out or cached(data)
    console = Console(width=max(Console().width, WIDTH))
    console.print(f"training a classifier of {spec}", highlight=False)
    card = make(data, path)
    card["calibration"] = calibrate(ClassifierFeatures(path), data)
    write_card(path, card)
    show(card, console)
    console.print(f"written to {path} and {path.with_suffix('.json').name}", highlight=False, soft_wrap=True)
    if shipped_for(spec):
        console.print(f"metrics of {spec.name} use the built-in classifier by default; use this one by --weights")
    return path


def show(card: dict[str, Any], console: Console) -> None:
    """Print a card: facts about the network, and the calibration."""
    recipe = card["recipe"]
    facts = {
        "SHA-256": card["sha256"],
        "accuracy": f"{card['accuracy']:.2%} of {card['held_out']:,} validation samples",
        **({"motion": f"{card['motion_accuracy']:.2%} of them"} if "motion_accuracy" in card else {}),
        "features": f"{card['dim']}, rectified, of a network of width {recipe['width']}",
        "trained": f"{recipe['steps']:,} batches, seed {recipe['seed']}, torch {card['torch']}",
    }
    for name, value in facts.items():
        console.print(f"{name:<10}{value}", highlight=False, soft_wrap=True)
    metrics = list(next(iter(card["calibration"].values())))
    table = Table("against validation", *metrics, box=None, header_style="bold")
    for name, values in card["calibration"].items():
        table.add_row(name, *(f"{values[metric]:.3g}" for metric in metrics))
    console.print(table, highlight=False)
