"""Train the classifier whose features samples of some data are measured in, and say how far it can be trusted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from zoo.config.compose import compose, to_plain
from zoo.core import registry
from zoo.core.errors import ZooError
from zoo.core.spaces import Image
from zoo.data.base import DataModule

WIDTH = 116  # of the table, also where the terminal is narrower


def train_feature_classifier(overrides: Sequence[str] = (), out: Path | None = None) -> Path:
    """Train on the training split, measure on the validation split, write weights and card, print the card.

    Args:
        overrides: `data=NAME` and `data.KEY=VALUE`, as for `zoo train`.
        out: the weights file, by default where `zoo.evaluation.features.base.features_for` looks for it; the card lies
            beside it, named .json.

    Returns:
        The weights file.

    Raises:
        ZooError: data without images or labels; nothing was written.
    """
    from zoo.evaluation.features.base import STACKED, ClassifierFeatures, cached, make, shipped_for
    from zoo.evaluation.features.calibration import calibrate, size
    from zoo.evaluation.features.classifier import write_card

    for override in overrides:
        if override.partition("=")[0].partition(".")[0] != "data":
            raise ZooError(f"zoo features takes data=NAME and data.KEY=VALUE, not {override}.")
    if out is not None and out.suffix != ".safetensors":
        raise ZooError(f"--out {out} is to be a weights file: name it {out.with_suffix('.safetensors').name}.")
    cfg = compose(*overrides)
    data: DataModule = registry.build("data", to_plain(cfg.data), where="data")
    spec = data.spec
    if spec.name in STACKED:
        single = STACKED[spec.name]
        raise ZooError(f"{spec.name} is measured in the features of {single}, channel by channel: data={single}.")
    if not isinstance(spec.x, Image) or not spec.n_classes:
        raise ZooError(f"a classifier is trained on images with labels, but {spec} is not: take features=pixels.")
    data.setup()
    size(data)  # refuses too few images before anything is trained
    path = out or cached(data)
    console = Console(width=max(Console().width, WIDTH))
    console.print(f"training a classifier of {spec}", highlight=False)
    card = make(data, path)
    card["calibration"] = calibrate(ClassifierFeatures(path), data)
    write_card(path, card)
    show(card, console)
    console.print(f"written to {path} and {path.with_suffix('.json').name}", highlight=False, soft_wrap=True)
    if shipped_for(spec):
        console.print(
            f"{spec.name} is still measured in the classifier that comes with the zoo, unless this one is named"
        )
    return path


def show(card: dict[str, Any], console: Console) -> None:
    """Print a card: what the network is, and what is measured in its features on sets whose faults are known."""
    recipe = card["recipe"]
    facts = {
        "SHA-256": card["sha256"],
        "accuracy": f"{card['accuracy']:.2%} of {card['held_out']:,} validation images",
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
