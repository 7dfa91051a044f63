"""A zoo of generative models.

```python
zoo.list_models("*gan*")
model = zoo.fit("vae", x)  # a tensor (N, C, H, W) or (N, D), an array, a Dataset, a DataLoader
model = zoo.create_model("vae", data="mnist", latent_dim=32)
model = zoo.load("runs/2026-11-22/10-00-00-vae-mnist"); model.sample(64)
```
"""

from typing import TYPE_CHECKING, Any

from zoo.core.errors import CheckpointError, ConfigError, DataError, HardwareError, TrainingError, ZooError
from zoo.core.registry import register
from zoo.core.signature import Component
from zoo.core.spec import DataSpec
from zoo.nn.networks.components import Decoder, Encoder
from zoo.nn.optim.components import Optimizer

if TYPE_CHECKING:
    from zoo.api import create_data, create_model, list_data, list_models, list_pretrained, model_info
    from zoo.data.base import DataModule
    from zoo.evaluation.evaluate import evaluate
    from zoo.interop.loading import load
    from zoo.models.base import Model
    from zoo.nn.optim.base import OptimizerConfig
    from zoo.training.python_api import fit
    from zoo.viz.render import show

__all__ = [
    "CheckpointError",
    "Component",
    "ConfigError",
    "DataError",
    "DataModule",
    "DataSpec",
    "Decoder",
    "Encoder",
    "HardwareError",
    "Model",
    "Optimizer",
    "OptimizerConfig",
    "TrainingError",
    "ZooError",
    "create_data",
    "create_model",
    "evaluate",
    "fit",
    "list_data",
    "list_models",
    "list_pretrained",
    "load",
    "model_info",
    "register",
    "show",
]

_LAZY = {  # imported on first access: torch and Lightning take seconds
    **dict.fromkeys(
        ("create_data", "create_model", "list_data", "list_models", "list_pretrained", "model_info"), "zoo.api"
    ),
    "load": "zoo.interop.loading",
    "fit": "zoo.training.python_api",
    "evaluate": "zoo.evaluation.evaluate",
    "show": "zoo.viz.render",
    "DataModule": "zoo.data.base",
    "Model": "zoo.models.base",
    "OptimizerConfig": "zoo.nn.optim.base",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
