"""A process of the zoo waits for torchmetrics only if it measures with it.

Lightning wants two of its classes, and `import torchmetrics` imports all of its metrics for them, with scipy's signals,
torchvision and, where it is installed, transformers: half the time until a training begins. After `defer`, the
package holds these two classes, and whoever asks it for more gets all of it then.
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
    """Let the first `import torchmetrics` of this process be a light one; nothing happens where it came before."""
    if PACKAGE not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The package as it would be found, but loaded our way; anything else is left to the other finders."""
        spec = PathFinder.find_spec(name, path) if name == PACKAGE else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    def __init__(self, whole: Loader) -> None:
        self.whole = whole

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """An empty module, which Python fills in with its name and place."""
        return _Deferred(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Import the two classes from their own files; all of the package where that does not work out."""
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.whole
        logger = module._logger = logging.getLogger(PACKAGE)  # type: ignore[attr-defined]  # what these files import
        try:
            import_module(f"{PACKAGE}.utilities")  # first, for it and `metric` import each other
            from torchmetrics.__about__ import __version__
            from torchmetrics.collections import MetricCollection
            from torchmetrics.metric import Metric
        except (ImportError, AttributeError) as error:
            logger.debug("imported as a whole: %r", error)
            for name in [name for name in sys.modules if name.startswith(f"{PACKAGE}.")]:
                del sys.modules[name]
            module.__class__ = ModuleType
            self.whole.exec_module(module)
            return
        module.__dict__.update(__version__=__version__, MetricCollection=MetricCollection, Metric=Metric, _light=True)


class _Deferred(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_light" not in self.__dict__:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.__class__ = ModuleType  # type: ignore[assignment]
        assert self.__spec__ is not None
        assert self.__spec__.loader is not None
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)
