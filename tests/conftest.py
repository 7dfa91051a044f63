import gc
import logging
import os
import sys
import sysconfig
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy: threads of BLAS slow down tiny matrices, most of all beside others
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # processes that tests start need not compile every module again

import torch
from hydra.core.hydra_config import HydraConfig

from zoo.cli.train import train
from zoo.data.text import stdlib
from zoo.nn.distributions import mixtures

torch.set_num_threads(1)  # the networks of the tests are too small for more
# Autograd starts its threads at the first gradient. After a first one on the pretended device, processes cannot fork.
torch.ones(1, requires_grad=True).sum().backward()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_traces_of_hydra() -> Iterator[None]:
    """Close the log files of runs, and forget their configuration: Hydra keeps both after a job."""
    yield
    HydraConfig.instance().cfg = None
    for handler in [h for h in logging.root.handlers if isinstance(h, logging.FileHandler)]:
        logging.root.removeHandler(handler)
        handler.close()


@dataclass
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Runs a command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mixtures, "MAX_EM_STEPS", 3)  # of the density of latents, at each validation

    def call(*arguments: str, entry: Callable[[], None] = train) -> Result:
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        code = 0
        try:
            entry()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Result(code, *capfd.readouterr())

    return call


@cache
def most_sources() -> set[str]:
    """Names of eleven in twelve files of Python's library, without those for validation and testing."""
    root = Path(sysconfig.get_path("stdlib"))
    files = sorted(path.relative_to(root) for path in root.rglob("*.py"))
    return {path.name for i, path in enumerate(files) if i % 12 and zlib.crc32(path.as_posix().encode()) % 50 > 1}


read_sources = cache(stdlib.sources.__wrapped__)


@cache
def read_documents(read: Callable[[], Iterator[tuple[str, list[str]]]] = stdlib.Pydoc.documents) -> list:
    return list(read())


@pytest.fixture
def few_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave most files out of Python's library, for what any text can show; the others are read once."""
    monkeypatch.setattr(stdlib, "LEFT_OUT", stdlib.LEFT_OUT | most_sources())
    monkeypatch.setattr(stdlib, "sources", read_sources)
    monkeypatch.setattr(stdlib.Pydoc, "documents", staticmethod(read_documents))


@pytest.fixture(scope="session")
def zoo_data() -> str:
    """Return the folder with real data sets; tests that require it are skipped without it."""
    root = os.environ.get("ZOO_DATA")
    if not root:
        pytest.skip("ZOO_DATA names no folder with MNIST, texts and pictures")
    return os.path.abspath(root)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect `slow` unless `-m` is given, and `gpu` on machines without one."""
    chosen = config.getoption("-m")
    left_out = set() if chosen else {"slow"}
    if not torch.cuda.is_available():
        left_out.add("gpu")
    kept, dropped = [], []
    for item in items:
        (dropped if left_out & {mark.name for mark in item.iter_markers()} else kept).append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept


def pytest_collection_finish() -> None:
    """Leave thousands of collected tests, which live to the end, out of garbage collections: each run ends with one."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let objects end before the exit: nanobind prints those that do not, after the summary."""
    gc.unfreeze()
