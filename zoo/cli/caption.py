"""`zoo caption`."""

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.app import RUN, app
from zoo.core.errors import ConfigError


@app.command("caption")
def caption_command(
    run: Annotated[str, typer.Argument(help=RUN)],
    image: Annotated[list[Path], typer.Option(help="a picture of any size; repeatable")],
    options: Annotated[
        list[str] | None, typer.Argument(help="KEY=VALUE: options of the model's method, such as temperature=1")
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="captions of each picture")] = 1,
    seed: Annotated[int, typer.Option(help="equal seeds give equal captions")] = 0,
    device: str = "cpu",
) -> None:
    """Describe pictures by a trained model."""
    import torch

    from zoo.cli.edit_images import read_picture
    from zoo.core.spaces import Image
    from zoo.data.loader import make_generator
    from zoo.interop.loading import load
    from zoo.models.ability import supports
    from zoo.models.image_abilities import SupportsCaptioning
    from zoo.models.options import parse_options

    model = load(run, device).eval()
    space = model.spec.x
    if not supports(model, SupportsCaptioning) or not isinstance(space, Image):
        raise ConfigError(f"{run}: {model.registered_name} does not caption pictures. Use a run of captioner.")
    given = parse_options(model.caption, options or [], "caption")
    pictures = [read_picture(path, "--image", space, (space.height, space.width), space.channels) for path in image]
    x = torch.stack([picture for picture in pictures for _ in range(n)]).to(model.device)
    captions = model.caption(x, generator=make_generator(seed), **given)
    for number, caption in enumerate(captions):
        print(f"{image[number // n]}: {caption}")
