"""Hydra callback: make the run folder before Hydra does, so that it is known which folders are new."""

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, read_write
from pytorch_lightning.utilities import rank_zero_only

from zoo.config.overrides import quote
from zoo.core.errors import ConfigError
from zoo.io.folders import make_folder, make_new_folder


class MakeRunFolder(Callback):
    """Make the folder of a run or sweep. Jobs that start in the same second get different ones: `NAME`, `NAME-2` ..."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Make `hydra.run.dir`."""
        HydraConfig.instance().set_config(config)  # the name of the folder refers to it
        _make(config, "run")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Make `hydra.sweep.dir`."""
        _make(config, "sweep")


def _make(config: DictConfig, mode: str) -> None:
    given = [o for o in config.hydra.overrides.hydra if o.lstrip("+").startswith(f"hydra.{mode}.dir=")]
    folder = Path(config.hydra[mode].dir)
    try:
        if given or rank_zero_only.rank:  # type: ignore[attr-defined]  # other processes of one training share the folder of the first
            make_folder(folder)
        else:
            folder = make_new_folder(folder)
            with read_write(config.hydra):
                config.hydra[mode].dir = str(folder)
                config.hydra.overrides.hydra.append(f"hydra.{mode}.dir={quote(str(folder))}")  # for jobs of a sweep
    except (OSError, ConfigError):  # Hydra makes the folder again, and its error or that of the run ends the command
        return
