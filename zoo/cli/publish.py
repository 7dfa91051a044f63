"""`zoo push`, `zoo pull` and `zoo store`."""

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.app import RUN, app
from zoo.core.counted import counted

store_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List, tag, back up and restore stores.")
app.add_typer(store_app, name="store")

TARGET = "STORE/NAME: a folder, a URL such as s3://bucket/models/NAME, hf://ORGANISATION/NAME, or mlflow://NAME"


@app.command("push")
def push_command(
    run: Annotated[str, typer.Argument(help=RUN)],
    target: Annotated[str, typer.Argument(help=TARGET)],
    tag: Annotated[list[str] | None, typer.Option(help="move this tag to it, besides latest; repeatable")] = None,
    half: Annotated[bool, typer.Option("--half", help="store weights in half precision")] = False,
    licence: Annotated[str | None, typer.Option(help="of the training data, such as CC-BY-4.0")] = None,
) -> None:
    """Publish a trained model, with its facts, metrics and a model card."""
    from zoo.hub.manifest import SHORT
    from zoo.hub.publish import push

    found = push(run, target, tags=tag or (), half=half, licence=licence)
    print(f"{target}@{found.version[:SHORT]} ({found.size / 1e6:.1f} MB)")
    if not found.metrics:
        print("It has no metrics: run `zoo evaluate` before, and push again.")


@app.command("pull")
def pull_command(
    source: Annotated[str, typer.Argument(help="STORE/NAME, with @TAG or @VERSION if it is not the latest")],
    out: Annotated[Path | None, typer.Option(help="new folder; by default NAME")] = None,
) -> None:
    """Copy a published model into a folder, and verify it."""
    from zoo.hub.manifest import SHORT
    from zoo.hub.publish import pull

    folder, found = pull(source, out)
    print(f"{folder}: {found.name} {found.version[:SHORT]}, {counted(len(found.files), 'file')} verified")
    print(f"Use it as a run: zoo sample {folder}")


@store_app.command("list")
def list_command(
    address: Annotated[str, typer.Argument(help="a store, or STORE/NAME for all versions of one model")],
    metrics: Annotated[int, typer.Option(min=0, help="number of metrics that are shown of each")] = 4,
) -> None:
    """List models with versions, tags and metrics."""
    from zoo.hub.publish import listing

    print(*listing(address, metrics), sep="\n")


@store_app.command("tag")
def tag_command(
    address: Annotated[str, typer.Argument(help="STORE/NAME@VERSION, or STORE/NAME@TAG")],
    tag: Annotated[str, typer.Argument(help="such as production")],
) -> None:
    """Move a tag to a version, also back to an older one."""
    from zoo.hub.manifest import SHORT
    from zoo.hub.publish import move_tag

    print(f"{tag} is now {move_tag(address, tag)[:SHORT]}")


@store_app.command("backup")
def backup_command(
    store: Annotated[str, typer.Argument(help="a folder or URL with models")],
    file: Annotated[Path, typer.Argument(help="a new .tar file")],
) -> None:
    """Write a whole store into one file."""
    from zoo.hub.store import backup

    print(f"{file}: {counted(backup(store, file), 'file')}")


@store_app.command("restore")
def restore_command(
    file: Annotated[Path, typer.Argument(help="of `zoo store backup`")],
    store: Annotated[str, typer.Argument(help="a folder or URL")],
) -> None:
    """Verify a backup, and write what a store does not have."""
    from zoo.hub.store import restore

    print(f"{store}: {counted(restore(file, store), 'file')} restored")
