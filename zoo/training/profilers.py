"""Lightning's profilers by name: `profiler=simple`."""

from collections.abc import Callable

from pytorch_lightning.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler

from zoo.core.errors import ConfigError
from zoo.core.registry import unknown_name_message
from zoo.runs.folder import RunFolder

PROFILERS: dict[str, Callable[..., Profiler]] = {
    "simple": SimpleProfiler,  # seconds per hook
    "advanced": AdvancedProfiler,  # cProfile
    "pytorch": PyTorchProfiler,  # operators, and a trace for chrome://tracing
}


def build_profiler(name: str | None, run: RunFolder) -> Profiler | None:
    """Build a profiler that writes `fit-profile.txt` into the run folder.

    Raises:
        ConfigError: an unknown name.
    """
    if name is None:
        return None
    if name not in PROFILERS:
        raise ConfigError(f"profiler={name}: {unknown_name_message('profiler', str(name), sorted(PROFILERS))}.")
    return PROFILERS[name](dirpath=run.folder, filename="profile")
