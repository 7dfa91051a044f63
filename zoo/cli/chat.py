"""`zoo chat`."""

import sys
from typing import Annotated, Any

import typer

from zoo.cli.app import RUN, app

HINT = "/reset begins again, /quit ends, Ctrl-C ends an answer."


@app.command("chat")
def chat_command(
    run: Annotated[str, typer.Argument(help=RUN)],
    options: Annotated[
        list[str] | None,
        typer.Argument(help="KEY=VALUE: options of the sampler, such as temperature=0.8 max_new_tokens=200"),
    ] = None,
    system: Annotated[str, typer.Option(help="a message of the system, before the chat")] = "",
    seed: Annotated[int, typer.Option(help="equal seeds and messages give equal chats")] = 0,
    device: str = "cpu",
) -> None:
    """Chat with a language model: each line of the input is a message."""
    from zoo.core.errors import ConfigError, ZooError
    from zoo.data.text.chat import template_of
    from zoo.hub.pretrained import resolve
    from zoo.interop.loading import load
    from zoo.models.abilities import SupportsTextGeneration, SupportsTokenSampling
    from zoo.models.ability import supports
    from zoo.models.options import parse_options
    from zoo.runs.folder import RunFolder

    model: Any = load(run, device)
    name = model.registered_name
    if not (supports(model, SupportsTextGeneration) and supports(model, SupportsTokenSampling)):
        raise ConfigError(f"model={name}: it does not continue text. Give the run of a language model.")
    if hasattr(model, "keep_prompts"):
        model.keep_prompts()
    place = resolve(run)
    template = template_of(model.tokenizer, RunFolder(place if place.is_dir() else place.parent).prompt_template())
    given = parse_options(model.stream, options or (), name)
    given = {"seed": seed, **given, "stop": [*template.stop, *given.get("stop", ())]}
    begin = [{"role": "system", "content": system}] if system else []
    history, turn, on_terminal = list(begin), 0, sys.stdin.isatty()
    if on_terminal:
        print(f"zoo: {name}, {template.kind} chat template. {HINT}", file=sys.stderr)
    while True:
        try:
            text = input("> " if on_terminal else "")
        except EOFError:
            return
        except KeyboardInterrupt:
            print(f"\nzoo: {HINT}", file=sys.stderr)
            continue
        if text.strip() == "/quit":
            return
        if text.strip() == "/reset":
            history, turn = list(begin), 0
        elif text.strip():
            history.append({"role": "user", "content": text})
            try:
                history = fitted(model, template, history, len(begin))
                pieces = model.stream(template.render(history), **given | {"seed": given["seed"] + turn})
                history.append({"role": "assistant", "content": write(pieces)})
                turn += 1
            except ZooError as error:
                print(f"zoo: {error}", file=sys.stderr)
                history.pop()


def fitted(model: Any, template: Any, history: list[dict[str, str]], n_kept: int) -> list[dict[str, str]]:
    """Leave out the oldest turns after the first `n_kept` messages until a quarter of the context is free."""
    while len(history) > n_kept + 2 and len(model.prompt_ids(template.render(history))) > model.spec.size * 3 // 4:
        history = history[:n_kept] + history[n_kept + 2 :]
    return history


def write(pieces: Any) -> str:
    """Print the pieces of an answer as they come, until Ctrl-C; return the whole."""
    from zoo.core.errors import printable

    answer = ""
    try:
        for piece in pieces:
            answer += piece
            print(printable(piece, keep="\n\t"), end="", flush=True)
    except KeyboardInterrupt:
        print(" ...", end="")
    print(flush=True)
    return answer
