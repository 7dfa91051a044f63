"""Lazy import of torchmetrics: all of it only when a metric is computed.

Lightning needs two of its classes, but `import torchmetrics` also imports scipy.signal, torchvision and transformers:
half of the start-up time. After `install`, the package contains these two classes, and any other attribute triggers the
full import.
"""

import logging
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

PACKAGE = "torchmetrics"


def install() -> None:
    """Make the first `import torchmetrics` of this process lazy; no effect if it is already imported."""
    if PACKAGE not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find the package as usual, but with the lazy loader; other packages go to the other finders."""
        spec = PathFinder.find_spec(name, path) if name == PACKAGE else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    def __init__(self, full_loader: Loader) -> None:
        self.full_loader = full_loader

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Create an empty module, which Python fills in with name and path."""
        return _LazyModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Import the two classes from their own files; fall back to the whole package."""
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.full_loader
        logger = module._logger = logging.getLogger(PACKAGE)  # type: ignore[attr-defined]  # imported by these files
        try:
            import_module(f"{PACKAGE}.utilities")  # first: it and `metric` import each other
            from torchmetrics.__about__ import __version__
            from torchmetrics.collections import MetricCollection
            from torchmetrics.metric import Metric
        except (ImportError, AttributeError) as error:
            logger.debug("imported the whole package: %r", error)
            for name in [name for name in sys.modules if name.startswith(f"{PACKAGE}.")]:
                del sys.modules[name]
            module.__class__ = ModuleType
            self.full_loader.exec_module(module)
            return
        module.__dict__.update(__version__=__version__, MetricCollection=MetricCollection, Metric=Metric, _lazy=True)


class _LazyModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_lazy" not in self.__dict__:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.__class__ = ModuleType  # type: ignore[assignment]
        assert self.__spec__ is not None
        assert self.__spec__.loader is not None
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)
