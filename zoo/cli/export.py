"""`zoo export`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.app import RUN, app


class Format(StrEnum):
    """Formats of `zoo export`."""

    safetensors = "safetensors"
    torch_export = "torch_export"
    onnx = "onnx"
    huggingface = "huggingface"
    gguf = "gguf"
    peft = "peft"


@app.command("export")
def export_command(
    run: Annotated[str, typer.Argument(help=RUN)],
    kind: Annotated[
        Format,
        typer.Option("--format", help="for the zoo, PyTorch, onnxruntime, `transformers`, llama.cpp, `peft`"),
    ] = Format.safetensors,
    out: Annotated[Path | None, typer.Option(help="by default in the run's export/")] = None,
) -> None:
    """Export a trained model, and verify the file."""
    if kind is Format.huggingface:
        from zoo.interop.huggingface import save

        save.export(run, out)
    elif kind is Format.peft:
        from zoo.interop.huggingface import peft_adapter

        peft_adapter.export(run, out)
    elif kind is Format.gguf:
        from zoo.interop import gguf

        gguf.export(run, out)
    else:
        from zoo.interop.export.export import export

        export(run, kind.value, out)  # type: ignore[arg-type]
