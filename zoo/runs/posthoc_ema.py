"""Averages of any width from the files of `callbacks=posthoc_ema`."""

from pathlib import Path

from zoo.core.errors import CheckpointError, ConfigError
from zoo.io.atomic import write_bytes
from zoo.io.weights_file import pack
from zoo.nn.optim.power_ema import combine, exponent, weights
from zoo.runs.checkpoint import read_checkpoint

FOLDER = "posthoc_ema"


def make_average(run: Path, std: float, out: Path | None = None) -> Path:
    """Write the model of a run with weights averaged over its whole training, and return the path of the file.

    Args:
        run: folder of a training with `callbacks=posthoc_ema`.
        std: standard deviation of the average's profile, relative to the length of the training.
        out: a .safetensors file; None is `ema-<std>.safetensors` in the run folder.

    Raises:
        ConfigError: a width outside (0, 0.28).
        CheckpointError: the run does not hold averages.
    """
    if not 0 < std < 0.28:
        raise ConfigError(f"--std={std}: not a width. Choose one above 0 and below 0.28.")
    files = sorted((run / FOLDER).glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{run}: holds no averages. Train with callbacks=posthoc_ema.")
    stored = [read_checkpoint(path) for path in files]
    found = [checkpoint["zoo"]["posthoc_ema"] for checkpoint in stored]
    profiles = [(exponent(one["std"]), float(one["seen"])) for one in found]
    length = max(seen for _, seen in profiles)
    state = combine([one["state_dict"] for one in stored], weights(profiles, (exponent(std), length)))
    note = {**stored[-1]["zoo"], "posthoc_ema": {"std": std, "seen": int(length)}}
    place = out or run / f"ema-{std:g}.safetensors"
    write_bytes(place, pack(state, note))
    return place
