"""A zoo of generative models: one contract, one command each.

zoo.list_models("*gan*")
model = zoo.create_model("vae", data="mnist", latent_dim=32)
model = zoo.load("runs/2026-11-22/10-00-00-vae-mnist"); model.sample(64)
"""

from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError
from zoo.registry import Decoder, Encoder, Part, register
from zoo.spec import DataSpec

if TYPE_CHECKING:
    from zoo.catalog import create_data, create_model, list_data, list_models, model_info
    from zoo.checkpoint import load
    from zoo.data.base import DataModule
    from zoo.models.base import GenerativeModel

__all__ = [
    "DataModule",
    "DataSpec",
    "Decoder",
    "Encoder",
    "GenerativeModel",
    "Part",
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
    **dict.fromkeys(("create_data", "create_model", "list_data", "list_models", "model_info"), "zoo.catalog"),
    "load": "zoo.checkpoint",
    "DataModule": "zoo.data.base",
    "GenerativeModel": "zoo.models.base",
}


def __getattr__(name: str) -> Any:
    if name not in _HEAVY:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HEAVY[name]), name)
