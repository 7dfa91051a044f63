"""`zoo export`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.app import app
from zoo.interop.huggingface import save


class Format(StrEnum):
    """What `zoo export` can write."""

    safetensors = "safetensors"
    torch_export = "torch_export"
    onnx = "onnx"
    huggingface = "huggingface"


@app.command("export")
def export_command(
    run: Annotated[Path, typer.Argument(help="a run folder or a checkpoint")],
    kind: Annotated[
        Format, typer.Option("--format", help="for the zoo, PyTorch alone, onnxruntime, `transformers`")
    ] = Format.safetensors,
    out: Annotated[Path | None, typer.Option(help="by default into the run's export/")] = None,
) -> None:
    """Write a trained model for other programs, checked against the model itself."""
    if kind is Format.huggingface:
        save.export(run, out)
    else:
        from zoo.interop.export.export import export

        export(run, kind.value, out)  # type: ignore[arg-type]
