"""`zoo evaluate`."""

import re
import sys
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from zoo.cli.app import app
from zoo.core.errors import ConfigError

SETTING = re.compile(r"[A-Za-z_][\w.]*=")


@app.command("evaluate")
def evaluate_command(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="run folders (best.ckpt), checkpoints in them, pretrained models, or Hugging Face folders; data=NAME "
            "data.KEY=VALUE for the latter, or for data that have moved; options of samples, such as steps=4, which "
            "the names of the metrics then contain"
        ),
    ],
    split: Annotated[
        str, typer.Option(help="test, val for model selection, or held_out: both together, a larger reference")
    ] = "test",
    n: Annotated[
        int | None, typer.Option("-n", min=2, help="samples; default: as many as training samples, up to 10k")
    ] = None,
    k: Annotated[
        int, typer.Option("-k", min=1, help="importance samples in the bound of a latent-variable model")
    ] = 100,
    features: Annotated[str, typer.Option(help="auto, classifier, pixels, inception, or model")] = "auto",
    weights: Annotated[Path | None, typer.Option(help="weights of inception or a classifier; a run, for model")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="a suite, such as likelihood, samples or text_memorisation; several times")
    ] = None,
    text: Annotated[
        Path | None, typer.Option(help="score this text file instead of the data; nothing is written into the run")
    ] = None,
    code: Annotated[
        str | None,
        typer.Option(
            help="programming tasks in the format of HumanEval, or builtin: pass@k of the programs that the model "
            "writes; KEY=VALUE are options of generation; nothing is written into the run"
        ),
    ] = None,
    execute: Annotated[bool, typer.Option("--execute", help="with --code: execute these programs")] = False,
    answers: Annotated[int, typer.Option(min=1, help="with --code: programs for each task")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="of samples, latents and subsets")] = 0,
    draws: Annotated[int, typer.Option(min=1, help="sets of samples; their metrics are mean ± deviation")] = 3,
    judgements: Annotated[
        list[Path] | None,
        typer.Option(help="of word vectors: a file of word pairs with similarities, or of analogies; several times"),
    ] = None,
    device: str = "cpu",
) -> None:
    """Measure trained models on held-out data, side by side, and write metrics.json into each run."""
    from rich.console import Console

    from zoo.evaluation.code_file import evaluate_code
    from zoo.evaluation.context import EvaluationConfig, SplitName
    from zoo.evaluation.evaluate import Evaluation, evaluate, of_equal_file, record
    from zoo.evaluation.report import report
    from zoo.evaluation.text_file import evaluate_file

    if split not in get_args(SplitName):
        raise ConfigError(f"--split={split}: not a split to evaluate on. Use {' or '.join(get_args(SplitName))}.")
    protocol = EvaluationConfig(cast(SplitName, split), n, k, features, weights, seed, draws, tuple(judgements or ()))
    done, lost = list[Evaluation](), dict[Path, OSError]()

    def keep(evaluation: Evaluation) -> None:
        """Record metrics; where that fails, they are still shown."""
        try:
            record(evaluation)
        except OSError as error:
            lost[evaluation.path] = error

    settings = [word for word in runs if SETTING.match(word) and not Path(word).exists()]
    changes = [word for word in settings if word.startswith(("data.", "data="))]
    options = [word for word in settings if word not in changes]
    pairs = (word.partition("=") for word in changes)
    data = {key.removeprefix("data.") if key != "data" else "name": value for key, _, value in pairs}
    if text is not None and options:
        raise ConfigError(
            f"{options[0]}: an option of samples, but --text={text} draws no samples. Leave one of them out."
        )
    if text is not None and code is not None:
        raise ConfigError(f"--code={code}: not together with --text. Leave one of them out.")
    if execute and code is None:
        raise ConfigError("--execute: needs --code. Add it, or leave --execute out.")
    for run in runs:
        if run in settings:
            continue
        if code is not None:
            words = tuple(options)
            done.append(
                evaluate_code(run, code, execute=execute, answers=answers, seed=seed, options=words, device=device)
            )
            continue
        if text is not None:
            done.append(evaluate_file(run, text, device=device))
            continue
        if (same := of_equal_file(run, done)) is not None:
            keep(same)
            done.append(same)
        else:
            done.append(evaluate(run, protocol, only=only or (), device=device, data=data, keep=keep, options=options))
        if done[-1].path not in lost:
            print(f"zoo: wrote {done[-1].path.with_name('metrics.json')}", file=sys.stderr)
    report(done, Console(width=None if sys.stdout.isatty() else 60 + 20 * len(done)))
    if lost:
        path, error = next(iter(lost.items()))
        raise ConfigError(
            f"{path.with_name('metrics.json')}: {(error.strerror or type(error).__name__).lower()}: the metrics above "
            "were not recorded. Make room, or copy the run to a folder that you can write to."
        )
