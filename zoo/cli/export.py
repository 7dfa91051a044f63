"""`zoo export`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.app import RUN, app
from zoo.core.errors import ConfigError


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
    model_type: Annotated[
        str, typer.Option(help="of the format huggingface, such as roberta; by default the first that is equal")
    ] = "",
) -> None:
    """Export a trained model, and verify the file."""
    if model_type and kind is not Format.huggingface:
        raise ConfigError(f"--model-type={model_type}: only with --format huggingface. Leave it out.")
    if kind is Format.huggingface:
        from zoo.interop.huggingface import save

        save.export(run, out, model_type)
    elif kind is Format.peft:
        from zoo.interop.huggingface import peft_adapter

        peft_adapter.export(run, out)
    elif kind is Format.gguf:
        from zoo.interop import gguf

        gguf.export(run, out)
    else:
        from zoo.interop.export.export import export

        export(run, kind.value, out)  # type: ignore[arg-type]
