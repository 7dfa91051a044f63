"""The command line: `python train.py ...`, and `zoo` with a word for everything else (`zoo --help`)."""

import atexit
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from zoo.core.errors import ZooError
from zoo.core.lazy_imports import install
from zoo.interop.huggingface import save

app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, rich_markup_mode=None)
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def train(arguments: Sequence[str] | None = None) -> None:
    """Compose the configuration from overrides and train; a user's mistake ends in one sentence, status 1.

    Args:
        arguments: overrides and Hydra's flags; None takes those of the process.
    """
    install()
    import hydra
    from omegaconf import DictConfig, OmegaConf

    from zoo.config.compose import register_with_hydra
    from zoo.config.error_messages import USER_ERRORS, to_user_error
    from zoo.config.recipes import CONF
    from zoo.config.sandbox import refuse_targets, untrusted_recipes

    typed = sys.argv
    refused: list[Exception] = []  # in a sweep, the other jobs still run

    @hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
    def job(cfg: DictConfig) -> float | None:
        from hydra.core.hydra_config import HydraConfig

        from zoo.training.train import train as run

        sys.argv = typed  # processes that Lightning starts repeat the command
        try:
            refuse_targets(OmegaConf.to_container(cfg), "the configuration")
            return run(cfg, HydraConfig.get().runtime.output_dir)
        except USER_ERRORS as error:
            refused.append(to_user_error(error))
            return None

    try:
        arguments = typed[1:] if arguments is None else arguments
        register_with_hydra()
        with raising(), untrusted_recipes(under_torchrun(resuming(arguments))) as trusted:
            sys.argv = [typed[0], *trusted]
            job()
    except USER_ERRORS as error:
        refused.append(to_user_error(error))
    except KeyboardInterrupt:  # before or after training, which saves first
        print("zoo: stopped.", file=sys.stderr)
        sys.exit(130)
    finally:
        sys.argv = typed
    if refused:
        fail(*refused)


@contextmanager
def raising() -> Iterator[None]:
    """Have Hydra raise its errors instead of printing them, so that `explain` can say them in one sentence."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


def resuming(arguments: Sequence[str]) -> list[str]:
    """`resume=RUN` stands for everything that RUN was started with; what else is given comes on top."""
    run = next((a.partition("=")[2] for a in arguments if a.startswith("resume=")), "")
    if not run or run == "null":
        return list(arguments)
    from zoo.config.sandbox import read_saved_overrides, refuse_links

    typed = Path(run) / "overrides.yaml"
    if not typed.is_file():
        raise ZooError(f"resume={run}: there is no run in that folder (it has no {typed.name}).")
    refuse_links(Path(run))
    before = [o for o in read_saved_overrides(typed) if not o.startswith("resume=")]
    folder = str(Path(run)).replace("=", r"\=")
    return [*before, *arguments, f"hydra.run.dir={folder}"]


def under_torchrun(arguments: Sequence[str]) -> list[str]:
    """All processes of torchrun compose a folder's name from the time: only the first one's is the run's."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("RANK", "0") == "0":
        return list(arguments)
    unused = tempfile.TemporaryDirectory(prefix="zoo-rank-")
    atexit.register(unused.cleanup)
    folders = [f"{key}={unused.name}" for key in ("hydra.run.dir", "hydra.sweep.dir")]
    return [*arguments, *(f for f in folders if not any(a.startswith(f.split("=")[0]) for a in arguments))]


def fail(*errors: BaseException) -> None:
    """One sentence each, status 1."""
    for error in errors:
        print(f"zoo: {error}", file=sys.stderr)
    sys.exit(1)


def complete_name(incomplete: str) -> list[str]:
    """Names for `zoo info` that begin so: models and data, and GROUP/NAME for everything."""
    from zoo.config.recipes import CHOOSERS, groups, recipes

    found = {group: list(recipes(group)) for group in groups()}
    names = [name for kind in CHOOSERS for name in found[kind]]
    names += [f"{group.rpartition('/')[2]}/{name}" for group in found for name in found[group] if "/" in incomplete]
    return sorted({name for name in names if name.startswith(incomplete)})


def complete_override(context: typer.Context, incomplete: str) -> list[str]:
    """Choices for `model=`, `data=`, `trainer=`, `experiment=`, `model/encoder=` ... that begin so.

    Bash splits words at "=" and replaces the last part alone; other shells pass and replace the whole word.
    """
    from zoo.config.recipes import groups, recipes

    words = [*(context.params.get("overrides") or []), incomplete]
    if "=" in incomplete[1:]:
        group, _, begun = incomplete.partition("=")
        front = f"{group}="
    elif words[-2:-1] == ["="] and len(words) > 2:
        group, begun, front = words[-3], incomplete, ""
    elif incomplete == "" and len(words) > 1:  # directly behind "=", which typer leaves out
        group, begun, front = words[-2], "", ""
    else:
        return []
    if group not in groups():
        return []
    return [f"{front}{name}" for name in recipes(group) if name.startswith(begun)]


Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="model=NAME data=NAME KEY=VALUE ..., as for `train`", autocompletion=complete_override),
]


@app.command("train", context_settings=PASS_ON, add_help_option=False)
def train_command(context: typer.Context, overrides: Overrides = None) -> None:
    """Train: everything behind it is as for `python train.py`, --help included."""
    train([*(overrides or []), *context.args])


@app.command("list")
def list_command(
    pattern: Annotated[str, typer.Argument(help="shell wildcard, such as '*gan*'")] = "*",
    markdown: Annotated[bool, typer.Option(help="everything as the tables in README")] = False,
) -> None:
    """What can follow model= and data=."""
    from zoo.api import list_data, list_models, model_info, tables

    if markdown:
        print(tables())
        return

    families: dict[str, list[str]] = {}
    for name in list_models(pattern):
        info = model_info(name)
        families.setdefault(info.family, []).append(f"  {name:<16} {info.summary}")
    for family, lines in sorted(families.items()):
        print(family, *lines, sep="\n")
    data = list_data(pattern)
    if data:
        print("data", *(f"  {name:<16} {summary}" for name, summary in data.items()), sep="\n")
    if not families and not data:
        raise ZooError(f"nothing matches {pattern!r}: `zoo list` shows everything.")


@app.command("info")
def info_command(name: Annotated[str, typer.Argument(autocompletion=complete_name)]) -> None:
    """A model, data set, network, trainer or experiment (`encoder/resnet`): facts, and every setting."""
    from zoo.api import describe

    print(describe(name))


@app.command("sample")
def sample_command(
    run: Annotated[Path, typer.Argument(help="a run folder or a checkpoint")],
    n: Annotated[int, typer.Option("-n", min=1, help="how many")] = 64,
    seed: Annotated[int, typer.Option(help="equal seeds give equal samples")] = 0,
    out: Annotated[Path | None, typer.Option(help=".png, .npy or .txt; by default into the run's samples/")] = None,
    label: Annotated[int | None, typer.Option(help="class, for conditional models; default: all in turn")] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="text to continue; may be given several times")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="text: longest continuation")] = 256,
    temperature: Annotated[float | None, typer.Option(min=0.0, help="0 is greedy; default: the model's own")] = None,
    top_k: Annotated[int, typer.Option(min=0, help="0 keeps all")] = 0,
    top_p: Annotated[float | None, typer.Option(min=0.0, max=1.0)] = None,
    repetition_penalty: Annotated[float, typer.Option(min=0.0)] = 1.0,
    beams: Annotated[int, typer.Option(min=1, help="above 1: beam search")] = 1,
    stop: Annotated[list[str] | None, typer.Option(help="text to end at; may be given several times")] = None,
    device: str = "cpu",
) -> None:
    """Draw samples from a trained model."""
    from zoo.cli.sample import Decoding, sample

    decoding = Decoding(max_new_tokens, temperature, top_k, top_p, repetition_penalty, beams, tuple(stop or ()))
    sample(run, n, seed=seed, out=out, label=label, prompts=prompt or [], decoding=decoding, device=device)


@app.command("features")
def features_command(
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="NAME.safetensors; by default where metrics look for it")] = None,
) -> None:
    """Train the small classifier whose features samples of labelled images are measured in."""
    from zoo.evaluation.features.train_classifier import train_feature_classifier

    train_feature_classifier(overrides or [], out)


@app.command("evaluate")
def evaluate_command(
    runs: Annotated[list[Path], typer.Argument(help="run folders (best.ckpt), or checkpoints in them")],
    split: Annotated[str, typer.Option(help="test, or val while choices are still being made")] = "test",
    n: Annotated[
        int | None, typer.Option("-n", min=2, help="samples; default: as many as training data, up to 10k")
    ] = None,
    k: Annotated[
        int, typer.Option("-k", min=1, help="importance samples in the bound of a latent-variable model")
    ] = 100,
    features: Annotated[str, typer.Option(help="auto, classifier, pixels or inception")] = "auto",
    weights: Annotated[Path | None, typer.Option(help="file of weights, for inception or a classifier")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="likelihood, prediction, samples, reconstruction, latent; several times")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="of samples, latents and subsets")] = 0,
    device: str = "cpu",
) -> None:
    """Measure trained models on held-out data, side by side, and write metrics.json into each run."""
    from rich.console import Console

    from zoo.evaluation.context import EvaluationConfig
    from zoo.evaluation.evaluate import evaluate, record
    from zoo.evaluation.report import report

    if split not in ("val", "test"):
        raise ZooError(f"--split {split} is no split to evaluate on: take test, or val.")
    protocol = EvaluationConfig("val" if split == "val" else "test", n, k, features, weights, seed)
    done = []
    for run in runs:
        done.append(evaluate(run, protocol, only=only or (), device=device))
        print(f"zoo: wrote {record(done[-1])}", file=sys.stderr)
    report(done, Console(width=None if sys.stdout.isatty() else 60 + 20 * len(done)))


@app.command("bench")
def bench_command(
    overrides: Overrides = None,
    against: Annotated[str, typer.Option(help="bare: a loop written by hand, in turn; or none")] = "bare",
    rounds: Annotated[int, typer.Option(min=1, help="of each, in turn")] = 10,
    seconds: Annotated[float, typer.Option(min=0.0, help="that a round lasts")] = 0.5,
    sweep: Annotated[bool, typer.Option(help="every recipe that is trained, in one table")] = False,
    record: Annotated[Path | None, typer.Option(help="file to write everything into, as JSON")] = None,
    grow: Annotated[str, typer.Option(help="time and memory over a setting: data.batch_size=32,64,128")] = "",
    sampling: Annotated[bool, typer.Option(help="how fast it draws, in place of how fast it trains")] = False,
) -> None:
    """Measure how fast a recipe trains on this machine, and how near that is to a loop written by hand."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # torch's profiler counts memory here; it need not talk
    from zoo.benchmarks.throughput import Timing, bench

    if against not in ("bare", "none"):
        raise ZooError(f"--against {against} is nothing to compare with: take bare, or none.")
    bench(overrides or (), Timing(rounds, seconds, bare=against == "bare"), sweep, record, grow, sampling)


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


def main() -> None:
    """Entry point of the `zoo` command."""
    install()
    if "_ZOO_COMPLETE" in os.environ:  # a shell would show warnings behind the prompt
        warnings.simplefilter("ignore")
    try:
        app()
    except ZooError as error:
        fail(error)
