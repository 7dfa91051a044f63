"""`zoo serve`."""

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.app import app
from zoo.core.errors import ConfigError


@app.command("serve")
def serve_command(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="run folders, checkpoints, exports, pretrained models or Hugging Face folders; NAME=RUN names one"
        ),
    ] = None,
    folder: Annotated[Path | None, typer.Option("--models", help="serve all runs in this folder too")] = None,
    host: Annotated[
        str, typer.Option(help="address to listen on; others than this machine need --key-file")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 8000,
    key_file: Annotated[Path | None, typer.Option(help="digests of API keys that requests must have one of")] = None,
    new_key: Annotated[
        Path | None, typer.Option(help="create an API key, print it, and add its digest to FILE")
    ] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="a name of this machine that clients use")] = None,
    feedback: Annotated[Path | None, typer.Option(help="SQLite file for ratings of answers; see zoo feedback")] = None,
    index: Annotated[
        Path | None, typer.Option(help="index of texts: chats are answered from its passages; see zoo index")
    ] = None,
    device: str = "cpu",
    memory: Annotated[float, typer.Option(min=0.0, help="gigabytes of weights that are loaded at a time")] = 4.0,
    rows: Annotated[int, typer.Option(min=1, help="texts that are generated together")] = 32,
    queue: Annotated[int, typer.Option(min=1, help="requests that wait for each model")] = 64,
    seconds: Annotated[float, typer.Option(min=0.1, help="until a request must be finished")] = 120.0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="of a model's arithmetic; default: one less than the processors")
    ] = None,
    quantize: Annotated[
        bool,
        typer.Option("--quantize", help="8-bit weights of language models, as by model.quantize()"),
    ] = False,
) -> None:
    """Serve trained models over HTTP: OpenAI's interface for text, pictures and embeddings, and a typed one."""
    from zoo.serve.keys import new_key as make_key

    if new_key is not None:
        print(make_key(new_key))
        return
    try:
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{error.name}: not installed. Install the extra: generative-zoo[serve].") from None
    from zoo.serve.limits import Limits
    from zoo.serve.server import serve

    limits = Limits(memory=int(memory * 2**30), rows=rows, queue=queue, seconds=seconds)
    serve(
        models or (), folder=folder, host=host, port=port, key_file=key_file, allow_hosts=allow_host or (),
        device=device, limits=limits, feedback=feedback, index=index, threads=threads,
        quantize=quantize,
    )  # fmt: skip
