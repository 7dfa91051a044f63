"""`zoo answer`."""

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.app import RUN, app
from zoo.core.errors import ConfigError


@app.command("answer")
def answer_command(
    run: Annotated[str, typer.Argument(help=RUN)],
    questions: Annotated[list[str], typer.Argument(help="one or more questions")],
    image: Annotated[list[Path], typer.Option(help="a picture of any size; repeatable")],
    device: str = "cpu",
) -> None:
    """Answer questions about pictures by a trained model."""
    import torch

    from zoo.cli.edit_images import read_picture
    from zoo.core.spaces import Image
    from zoo.interop.loading import load
    from zoo.models.ability import supports
    from zoo.models.image_abilities import SupportsQuestionAnswering

    model = load(run, device).eval()
    space = model.spec.x
    if not supports(model, SupportsQuestionAnswering) or not isinstance(space, Image):
        raise ConfigError(f"{run}: {model.registered_name} does not answer questions. Use a run of vqa.")
    size = space.height, space.width
    x = torch.stack([read_picture(path, "--image", space, size, space.channels) for path in image])
    for path, answers in zip(image, model.answer(x.to(model.device), questions), strict=True):
        for question, answer in zip(questions, answers, strict=True):
            print(f"{path}: {question} {answer}")
