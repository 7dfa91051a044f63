"""`/api/models`: what each model can do."""

from dataclasses import dataclass
from typing import Any

from zoo.serve.errors import APIError
from zoo.serve.service import Service, endpoint


@dataclass(frozen=True, kw_only=True)
class ModelDetails:
    """A model: what it can do, its spaces, and the options of each ability.

    Args:
        details: abilities with their labels, `space` with its shape, `condition`, `options` and `takes` by ability;
            None with an `error`.
        error: why the model cannot be loaded.
    """

    id: str
    loaded: bool
    details: dict[str, Any] | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class DetailsList:
    """All models; `feedback` is whether ratings are stored."""

    models: list[ModelDetails]
    feedback: bool = False


@endpoint("GET", "/api/models")
async def describe_models(service: Service) -> DetailsList:
    """Describe all models; each is loaded once for it."""
    found = []
    for name in service.pool.sources:
        try:
            found.append(await details_of(service, name))
        except APIError as error:
            found.append(ModelDetails(id=name, loaded=False, error=str(error)))
    return DetailsList(models=found, feedback=service.feedback is not None)


@endpoint("GET", "/api/models/{model}")
async def describe_model(service: Service, model: str) -> ModelDetails:
    """Describe one model."""
    return await details_of(service, model)


async def details_of(service: Service, name: str) -> ModelDetails:
    """Description of a model."""
    details = await service.pool.describe(name)
    template = await service.pool.template(name)
    chat = {"chat_template": template.kind} if "generate" in details["abilities"] else {}
    return ModelDetails(id=name, loaded=bool(details.pop("loaded")), details=details | chat)
