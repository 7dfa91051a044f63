"""`zoo edit`."""

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.app import RUN, app
from zoo.core.errors import ConfigError


@app.command("edit")
def edit_command(
    run: Annotated[str, typer.Argument(help=RUN)],
    image: Annotated[
        list[Path] | None, typer.Option(help="a picture (or a video) of any size, or a folder; repeatable")
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Argument(help="KEY=VALUE: options of the model's method, such as steps=100; condition=3 for a class"),
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="of a variation, the default change: above 0 (the picture) to 1 (a sample)")
    ] = None,
    mask: Annotated[Path | None, typer.Option(help="inpaint: a picture of equal size, white where it changes")] = None,
    super_resolve: Annotated[
        int | None, typer.Option(min=2, help="scale the picture down, and draw so many times the resolution")
    ] = None,
    colorize: Annotated[bool, typer.Option("--colorize", help="draw the colours of a grey picture")] = False,
    interpolate: Annotated[
        int | None, typer.Option(min=2, help="pictures from the first to the second one, through the latent")
    ] = None,
    translate: Annotated[
        bool, typer.Option("--translate", help="by a model of images given images; reverse=true goes back")
    ] = False,
    style: Annotated[
        Path | None, typer.Option(help="transfer the style of this picture; method=gatys optimises the pixels")
    ] = None,
    continue_: Annotated[
        int | None, typer.Option("--continue", min=1, help="of videos: draw the frames after so many first ones")
    ] = None,
    rows: Annotated[
        Path | None, typer.Option(help="of tables: fill in the empty cells of a .csv or .parquet file, into --out .csv")
    ] = None,
    n: Annotated[
        int | None, typer.Option("-n", min=1, help="results for each picture (default 4, of --translate and --style 1)")
    ] = None,
    seed: Annotated[int, typer.Option(help="equal seeds give equal results")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="a file (.png .jpg with the pictures beside, .npy) or new folder")
    ] = None,
    device: str = "cpu",
) -> None:
    """Edit, translate or restyle pictures by a trained model, in many ways, continue videos, and fill in rows."""
    from zoo.cli.edit_images import edit_images

    words = [*(options or ()), *([] if strength is None else [f"strength={strength}"])]
    others: dict[str, object] = {
        "--mask": mask,
        "--super-resolve": super_resolve,
        "--colorize": colorize,
        "--interpolate": interpolate,
    }
    others |= {"--translate": translate, "--style": style}
    if rows:
        from zoo.cli.edit_rows import fill_rows

        others |= {"--image": image, "--continue": continue_, "-n": n, "--strength": strength}
        if extra := [name for name, value in others.items() if value]:
            raise ConfigError(f"--rows={rows}: not together with {extra[0]}. Leave one out.")
        fill_rows(run, rows, options=words, seed=seed, out=out, device=device)
        return
    if not image:
        raise ConfigError("--image: nothing to edit. Give a picture or a video, or a table by --rows.")
    if continue_:
        from zoo.cli.edit_videos import continue_videos

        if extra := [name for name, value in others.items() if value]:
            raise ConfigError(f"--continue={continue_}: not together with {extra[0]}. Leave one out.")
        continue_videos(run, image, continue_, n=n or 4, options=words, seed=seed, out=out, device=device)
        return
    edit_images(
        run,
        image,
        mask=mask,
        super_resolve=super_resolve,
        colorize=colorize,
        interpolate=interpolate,
        translate=translate,
        style=style,
        n=n,
        options=words,
        seed=seed,
        out=out,
        device=device,
    )
