"""A zoo of generative models: one contract, one command each.

zoo.list_models("*gan*")
model = zoo.create_model("vae", data="mnist", latent_dim=32)
model = zoo.load("runs/2026-11-22/10-00-00-vae-mnist"); model.sample(64)
"""

from typing import TYPE_CHECKING, Any

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import Component
from zoo.core.spec import DataSpec
from zoo.nn.networks.components import Decoder, Encoder
from zoo.nn.optim.components import Optimizer

if TYPE_CHECKING:
    from zoo.api import create_data, create_model, list_data, list_models, model_info
    from zoo.data.base import DataModule
    from zoo.interop.loading import load
    from zoo.models.base import GenerativeModel
    from zoo.nn.optim.base import OptimizerConfig

__all__ = [
    "Component",
    "DataModule",
    "DataSpec",
    "Decoder",
    "Encoder",
    "GenerativeModel",
    "Optimizer",
    "OptimizerConfig",
    "ZooError",
    "create_data",
    "create_model",
    "list_data",
    "list_models",
    "load",
    "model_info",
    "register",
]

_HEAVY = {  # imported when first asked for: torch and Lightning take seconds
    **dict.fromkeys(("create_data", "create_model", "list_data", "list_models", "model_info"), "zoo.api"),
    "load": "zoo.interop.loading",
    "DataModule": "zoo.data.base",
    "GenerativeModel": "zoo.models.base",
    "OptimizerConfig": "zoo.nn.optim.base",
}


def __getattr__(name: str) -> Any:
    if name not in _HEAVY:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HEAVY[name]), name)
