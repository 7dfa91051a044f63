"""Tables of `zoo bench`."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

TRAINING_COLUMNS = {  # key of the result: heading, format
    "model": ("model", "{}"),
    "data": ("data", "{}"),
    "batch": ("batch", "{:,}"),
    "precision": ("precision", "{}"),
    "per_second": ("per s", "{:,.0f}"),
    "ms": ("ms a step", "{:.2f}"),
    "bare_ms": ("bare ms", "{:.2f}"),
    "ratio": ("of bare speed", "{:.1%}"),
    "spread": ("from - to", "{:.0%}"),
    "cpu_ratio": ("by CPU time", "{:.1%}"),
    "data_share": ("waits for data", "{:.1%}"),
    "flops": ("GFLOP/s", "{:,.1f}"),
    "of_matmul": ("of matmul", "{:.1%}"),
    "step_mb": ("step MB", "{:,.1f}"),
    "peak_gb": ("process GB", "{:.2f}"),
}
SAMPLING_COLUMNS = {
    "model": ("model", "{}"),
    "data": ("data", "{}"),
    "batch": ("batch", "{:,}"),
    "per_second": ("samples per s", "{:,.1f}"),
    "ms": ("ms a batch", "{:,.1f}"),
    "tokens_per_second": ("tokens per s", "{:,.0f}"),
    "speed_up": ("times as fast as without a cache", "{:,.1f}"),
    "of_decoder": ("of the decoder's own speed", "{:.1%}"),
}
SERVING_COLUMNS = {
    "where": ("where", "{}"),
    "per_request": ("images a request", "{:,}"),
    "images_per_second": ("images per s", "{:,.0f}"),
    "of_in_process": ("of in process", "{:.0%}"),
    "spread": ("from - to", "{:.0%}"),
    "cpu_of_in_process": ("by CPU time", "{:.0%}"),
    "of_encoded": ("of that as PNG", "{:.0%}"),
    "encoded_spread": ("from - to", "{:.0%}"),
    "cpu_of_encoded": ("by CPU time", "{:.0%}"),
    "streams": ("streams", "{}"),
    "tokens_per_second": ("tokens per s", "{:,.0f}"),
    "times_one": ("times one stream", "{:.2f}"),
    "first_ms": ("ms to the first token", "{:.1f}"),
    "token_ms": ("ms a token", "{:.2f}"),
    "added_ms": ("ms added to 16 tokens", "{:.1f}"),
    "added_cpu_ms": ("by CPU time", "{:.1f}"),
}


def report(results: Sequence[dict[str, Any]], console: Console) -> None:
    """Print a Markdown table with one row per measurement."""
    trained = all("data_share" in row for row in results)
    columns = {key: (key, "{}") for key in results[0] if "." in key}  # the setting of --grow
    served = {"streams", "where"} & results[0].keys()
    columns |= TRAINING_COLUMNS if trained else SERVING_COLUMNS if served else SAMPLING_COLUMNS
    shown = {key: how for key, how in columns.items() if any(key in row for row in results)}
    table = Table(box=box.MARKDOWN)
    for heading, form in shown.values():
        table.add_column(heading, justify="left" if form == "{}" else "right", no_wrap=True)
    for row in results:
        table.add_row(*(format_cell(row.get(key), form) for key, (_, form) in shown.items()))
    console.print(table)


def format_cell(value: Any, form: str) -> str:
    """Format a number or a range; empty for None."""
    if value is None:
        return ""
    return " - ".join(map(form.format, value)) if isinstance(value, (tuple, list)) else form.format(value)
