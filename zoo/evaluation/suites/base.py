"""Base class of suites: groups of metrics that apply to some models and data."""

from zoo.core import registry
from zoo.data.base import DataModule
from zoo.evaluation.context import EvaluationContext, Scores
from zoo.models.base import Model


class Suite:
    """A group of metrics: `@register("suite", NAME)`."""

    order: int = 50  # smaller is measured first
    draws: bool = False  # it measures random samples: repeat it with other seeds

    def applies(self, model: Model, data: DataModule) -> bool:
        """Whether the metrics are defined for the model and data."""
        raise NotImplementedError

    def measure(self, context: EvaluationContext) -> Scores:
        """Metrics by name."""
        raise NotImplementedError


def suites() -> dict[str, Suite]:
    """All registered suites, in order of measurement."""
    found = {name: registry.build("suite", name) for name in registry.names("suite")}
    return dict(sorted(found.items(), key=lambda item: (item[1].order, item[0])))
