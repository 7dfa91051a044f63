"""`/api/forecast`."""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Interval, Len
from torch import Tensor

from zoo.core.spaces import Series
from zoo.data.loader import make_generator
from zoo.serve.errors import invalid
from zoo.serve.openai_types import ModelName, Seed
from zoo.serve.sampling import check_size, fresh_seed, require
from zoo.serve.schema import Request
from zoo.serve.service import Service, endpoint

Step = Annotated[list[float | None], Len(1, 1000)]
Level = Annotated[float, Interval(gt=0, lt=1)]


@dataclass(frozen=True, kw_only=True)
class ForecastRequest(Request):
    """A request to continue a time series.

    Args:
        model: one with the ability `forecast`.
        history: the past, a list of steps with a number for each column; null where a value is missing. Only as many
            of the last steps are read as the model has been trained with.
        horizon: steps to add; by default that of the training.
        n: samples of the future, for the mean and the quantiles.
        quantiles: levels, between 0 and 1.
        covariates: of all steps of `history` and of the horizon, if the model has them.
        seed: equal seeds give equal forecasts, also those of `zoo forecast` for one series.
    """

    model: ModelName
    history: Annotated[list[Step], Len(1, 10_000)]
    horizon: Annotated[int | None, Interval(ge=1, le=1000)] = None
    n: Annotated[int, Interval(ge=2, le=1000)] = 200
    quantiles: Annotated[list[Level], Len(1, 16)] = (0.1, 0.5, 0.9)  # type: ignore[assignment]
    covariates: Annotated[list[Step], Len(1, 11_000)] | None = None
    seed: Seed = None


@dataclass(frozen=True, kw_only=True)
class Quantile:
    """A quantile of each step and column."""

    level: float
    values: list[list[float]]


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Mean and quantiles of the future, a list of steps with a number for each column."""

    model: str
    seed: int
    columns: list[str]
    mean: list[list[float]]
    quantiles: list[Quantile]


@endpoint("POST", "/api/forecast")
async def forecast(service: Service, body: ForecastRequest) -> Forecast:
    """Continue a time series."""
    seed = fresh_seed(body.seed)
    async with service.pool.use(body.model) as engine:
        require(engine, "forecast")
        model: Any = engine.model
        space = model.spec.x
        if not isinstance(space, Series):
            raise invalid(f"model={body.model}: it forecasts {space}, and no series.", "model", "unsupported")
        horizon = body.horizon or space.horizon
        if (numbers := body.n * horizon * len(space.columns)) > service.limits.numbers:
            raise invalid(f"n={body.n}: a forecast of {numbers:,} numbers is too large. Lower n.", "n", "too_many")
        check_size(service, 1, (1 + len(body.quantiles)) * horizon * len(space.columns))
        past = steps_of(body.history, len(space.columns), "history")[-space.history :]
        if not space.missing and bool(past.isnan().any()):
            raise invalid("history: the model does not read missing values. Fill them in.", "history")
        known = covariates_of(body, model.spec.condition, len(past), horizon)
        levels = sorted(set(body.quantiles))

        def run(model: Any) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                given = None if known is None else known[None].to(model.device)
                paths = model.forecast(
                    past[None].to(model.device), horizon, body.n, condition=given, generator=make_generator(seed, 0)
                )[0].cpu()  # (n, horizon, D)
                return paths.mean(0), torch.quantile(paths, torch.tensor(levels), dim=0)

        mean, shown = await engine.call(run)
    return Forecast(
        model=body.model,
        seed=seed,
        columns=list(space.columns),
        mean=mean.tolist(),
        quantiles=[Quantile(level=level, values=x.tolist()) for level, x in zip(levels, shown, strict=True)],
    )


def steps_of(rows: list[list[float | None]], width: int, param: str) -> Tensor:
    """Steps (T, D), NaN where a value is missing.

    Raises:
        APIError: a step of another number of columns.
    """
    for i, row in enumerate(rows):
        if len(row) != width:
            raise invalid(f"{param}[{i}]: {len(row)} numbers for {width} columns. Correct it.", param)
    return torch.tensor([[float("nan") if v is None else v for v in row] for row in rows])


def covariates_of(body: ForecastRequest, space: Any, past: int, horizon: int) -> Tensor | None:
    """Covariates of the steps that are read and of the horizon, (past + horizon, C); None for models without them.

    Raises:
        APIError: given to a model without them, missing for one that has them, or of other steps.
    """
    if not isinstance(space, Series):
        if body.covariates is not None:
            raise invalid("covariates: the model does not have any. Leave them out.", "covariates", "unsupported")
        return None
    steps = len(body.history) + horizon
    if body.covariates is None or len(body.covariates) != steps:
        names = ", ".join(space.columns)
        raise invalid(f"covariates: needed for {steps} steps, past and future ({names}). Send them.", "covariates")
    found = steps_of(body.covariates, len(space.columns), "covariates")
    if bool(found.isnan().any()):
        raise invalid("covariates: must not be missing. Fill them in.", "covariates")
    return found[-(past + horizon) :]
