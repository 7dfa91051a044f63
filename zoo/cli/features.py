"""`zoo features`."""

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.app import Overrides, app


@app.command("features")
def features_command(
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="NAME.safetensors; by default in the cache, for metrics")] = None,
) -> None:
    """Train the classifier whose features are used in sample metrics of labelled images."""
    from zoo.evaluation.features.train_classifier import train_feature_classifier

    train_feature_classifier(overrides or [], out)
