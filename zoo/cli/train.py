"""`python train.py ...` and `zoo train ...`."""

import atexit
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer

from zoo.cli.app import Overrides, app, fail, tolerate_encodings
from zoo.core.errors import ConfigError
from zoo.core.lazy_imports import install
from zoo.hub.manifest import FILE as MANIFEST

FLAGS = (  # of Hydra; each may be abbreviated
    *("--help", "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run", "--multirun", "--info"),
    *("--config-path", "--config-name", "--config-dir"),
)
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def train(arguments: Sequence[str] | None = None) -> None:
    """Compose the configuration from overrides, and train. Errors of the user are one sentence, with exit status 1.

    Args:
        arguments: overrides and Hydra's flags; None for `sys.argv`.
    """
    try:
        compose_and_train(arguments)
    except KeyboardInterrupt:  # before or after training, which saves first
        print("zoo: stopped.", file=sys.stderr)
        sys.exit(130)


def compose_and_train(arguments: Sequence[str] | None) -> None:
    """See `train`."""
    install()
    tolerate_encodings()
    import hydra
    from omegaconf import DictConfig, OmegaConf

    from zoo.config.compose import check_keys, register_with_hydra
    from zoo.config.error_messages import USER_ERRORS, to_user_error
    from zoo.config.overrides import check_choices, open_trainer, quote_texts
    from zoo.config.recipes import CONF
    from zoo.config.sandbox import refuse_targets, untrusted_recipes

    typed = sys.argv
    refused: list[Exception] = []  # in a sweep, the other jobs still run

    @hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
    def job(cfg: DictConfig) -> float | None:
        from hydra.core.hydra_config import HydraConfig

        from zoo.io.folders import remove_empty
        from zoo.training.train import train as run

        sys.argv = typed  # processes that Lightning starts repeat the command
        folder = HydraConfig.get().runtime.output_dir
        try:
            check_keys(cfg)
            if HydraConfig.get().job.chdir:
                raise ConfigError("hydra.job.chdir=true: paths would not be relative to this folder. Leave it out.")
            refuse_targets(OmegaConf.to_container(cfg), "the configuration")
            return run(cfg, folder)
        except USER_ERRORS as error:
            remove_empty(Path(folder))
            refused.append(to_user_error(error))
            return None

    try:
        arguments = typed[1:] if arguments is None else arguments
        register_with_hydra()
        if {"--help", "-h"} & {*arguments}:
            print(help_text(CONF))
            return
        with raising(), untrusted_recipes(under_torchrun(resuming(quote_texts(arguments)))) as trusted:
            check_choices(trusted)
            sys.argv = [typed[0], *open_trainer(flags_first(trusted))]
            job()
    except USER_ERRORS as error:
        refused.append(to_user_error(error))
    finally:
        sys.argv = typed
    if refused:
        fail(*refused)


def help_text(conf: Path) -> str:
    """The page of `--help`. Hydra's own would list all groups one by one, which takes a minute."""
    from omegaconf import OmegaConf

    page = OmegaConf.create({"hydra": {"help": OmegaConf.load(conf / "hydra/help/zoo.yaml")}})
    return str(page.hydra.help.template)


def flags_first(arguments: Sequence[str]) -> list[str]:
    """Move overrides behind flags: Hydra's parser refuses `model=gan -m seed=1,2`.

    Raises:
        ConfigError: a flag that does not exist, or one of Hydra that is not supported.
    """
    for flag in arguments:
        if flag.startswith(("--shell", "-sc", "--exp")):  # completion by Hydra, and unpickling
            raise ConfigError(f"{flag}: not supported. For completion run `zoo --install-completion`.")
        name = flag.partition("=")[0]
        if name.startswith("--") and not any(known.startswith(name) for known in FLAGS):
            raise ConfigError(f"{name}: not a flag. Write settings as KEY=VALUE, such as {name.lstrip('-')}=VALUE.")
    return sorted(arguments, key=lambda word: word.startswith("~") or ("=" in word and not word.startswith("-")))


@contextmanager
def raising() -> Iterator[None]:
    """Make Hydra raise errors instead of printing them."""
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
    """Replace `resume=RUN` by the overrides of RUN, followed by the other arguments."""
    from zoo.config.overrides import quote, text_of
    from zoo.config.sandbox import read_saved_overrides, refuse_links

    given = [text_of(a) for a in arguments if a.startswith("resume=") and a != "resume=null"]
    if not given or not given[-1]:
        return list(arguments)
    run = Path(given[-1])
    typed = run / "overrides.yaml"
    if (run / MANIFEST).is_file():
        raise ConfigError(
            f"resume={run}: a published model, without the state of its training. Train it further by init_from={run}."
        )
    if not typed.is_file() and (run / "config.yaml").is_file():
        raise ConfigError(
            f"resume={run}: trained from Python, with objects that a command cannot name. "
            f"Continue it there: zoo.fit(..., folder={str(run)!r}, resume=True)."
        )
    runs = sorted(file.parent.as_posix() for file in run.glob("*/overrides.yaml"))
    if not typed.is_file() and runs:
        raise ConfigError(f"resume={run}: a sweep. Resume its runs one by one: resume={runs[0]} ...")
    if not typed.is_file():
        raise ConfigError(f"resume={run}: not a run folder ({typed.name} is missing). Name one below runs/.")
    refuse_links(run)
    before = [o for o in read_saved_overrides(typed) if not o.startswith("resume=")]
    return [*before, *arguments, f"resume={quote(str(run))}", f"hydra.run.dir={quote(str(run))}"]


def under_torchrun(arguments: Sequence[str]) -> list[str]:
    """Give processes of torchrun except the first a temporary folder: the names of run folders contain the time."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("RANK", "0") == "0":
        return list(arguments)
    unused = tempfile.TemporaryDirectory(prefix="zoo-rank-")
    atexit.register(unused.cleanup)
    folders = [f"{key}={unused.name}" for key in ("hydra.run.dir", "hydra.sweep.dir")]
    return [*arguments, *(f for f in folders if not any(a.startswith(f.split("=")[0]) for a in arguments))]


@app.command("train", context_settings=PASS_ON, add_help_option=False)
def train_command(context: typer.Context, overrides: Overrides = None) -> None:
    """Train a model; arguments are those of `python train.py`, including --help."""
    train([*(overrides or []), *context.args])
