"""What a suite is: a group of metrics that applies to some models and data."""

from zoo.core import registry
from zoo.data.base import DataModule
from zoo.evaluation.context import EvaluationContext, Scores
from zoo.models.base import Model


class Suite:
    """A group of metrics: `@register("suite", NAME)`, here or in a package of yours."""

    order: int = 50  # smaller ones are measured first

    def applies(self, model: Model, data: DataModule) -> bool:
        """Whether the model and the data have what the metrics need."""
        raise NotImplementedError

    def measure(self, context: EvaluationContext) -> Scores:
        """Metrics by name."""
        raise NotImplementedError


def suites() -> dict[str, Suite]:
    """All registered suites, in the order in which they are measured."""
    found = {name: registry.build("suite", name) for name in registry.names("suite")}
    return dict(sorted(found.items(), key=lambda item: (item[1].order, item[0])))
