"""`/api/impute`: rows of tables with some given cells."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from zoo.core.errors import DataError
from zoo.core.spaces import Table
from zoo.data.loader import make_generator
from zoo.data.table.rows import encoded_cells
from zoo.serve.api_samples import Samples
from zoo.serve.api_types import Count, Format, items_of, space_name
from zoo.serve.errors import invalid
from zoo.serve.openai_types import ModelName, Seed
from zoo.serve.sampling import check_size, checked_options, fresh_seed, require
from zoo.serve.schema import Request
from zoo.serve.service import Service, endpoint


@dataclass(frozen=True, kw_only=True)
class ImputeRequest(Request):
    """A request for rows that have some given cells.

    Args:
        model: of tables, with the ability `inpaint`.
        row: field by column, as in the CSV file of the data; empty for a missing value. Other columns are drawn.
        n: number of rows.
        seed: see `SampleRequest`.
        options: of the method.
        format: see `SampleRequest`.
    """

    model: ModelName
    row: dict[str, str]
    n: Count = 1
    seed: Seed = None
    options: dict[str, Any] = field(default_factory=dict)
    format: Format = "auto"


@endpoint("POST", "/api/impute")
async def impute(service: Service, body: ImputeRequest) -> Samples:
    """Draw the other cells of rows."""
    seed = fresh_seed(body.seed)
    async with service.pool.use(body.model) as engine:
        require(engine, "inpaint")
        model: Any = engine.model
        space = model.spec.x
        if not isinstance(space, Table):
            raise invalid(f"model={body.model}: it is not a model of tables. Use /api/inpaint.", "model", "unsupported")
        check_size(service, body.n, body.n * space.size)
        options = checked_options(model.inpaint, body.options)
        try:
            x, mask = encoded_cells(space, body.row)
        except DataError as error:
            raise invalid(f"row: {error}", "row") from None
        rows = x.expand(body.n, -1).to(model.device)

        def run(model: Any) -> Tensor:
            with torch.no_grad():
                found: Tensor = model.inpaint(rows, mask.to(model.device), generator=make_generator(seed), **options)
                return found.cpu()

        samples = await items_of(engine, await engine.call(run), body.format)
        return Samples(model=body.model, space=space_name(engine), seed=seed, samples=samples)
