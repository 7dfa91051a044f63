"""The annotation of a setting that chooses an optimizer."""

from typing import Annotated, Any

from zoo.core.signature import Component

Optimizer = Annotated[str | dict[str, Any], Component("optimizer")]  # a subclass of `zoo.nn.optim.base.OptimizerConfig`
