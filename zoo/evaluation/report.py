"""Tables of metrics."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from zoo.evaluation.context import Metric
from zoo.evaluation.evaluate import Evaluation

ARROWS = {"lower": "↓", "higher": "↑", "reference": "→"}


def table(evaluations: Sequence[Evaluation]) -> Table:
    """Make a table with metrics in rows, and runs and real data references in columns."""
    names = list(dict.fromkeys(name for e in evaluations for name in e.scores))
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("metric", overflow="fold")
    for e in evaluations:
        values = [format_value(score.value, score.error) for score in e.scores.values()]
        width = max(map(len, values), default=0)  # numbers stay whole in narrow terminals, where names are folded
        shown.add_column(e.title, justify="right", overflow="fold", min_width=width)
    shown.add_column("real data", justify="right", no_wrap=True)
    for name in names:
        scores = [e.scores.get(name) for e in evaluations]
        known = [s for s in scores if s is not None]
        references = {format_value(s.real_data_reference) for s in known if s.real_data_reference is not None}
        cells = ["" if s is None else format_metric(s) for s in scores]
        shown.add_row(f"{name} {ARROWS[known[0].better]}", *cells, " ".join(sorted(references)))
    return shown


def format_metric(metric: Metric) -> str:
    """Format the value with its error, or the reason why there is none."""
    reason = metric.note if metric.note.startswith("not measured") else ""
    return reason or format_value(metric.value, metric.error)


def format_value(value: float | None, error: float | None = None) -> str:
    """Format with four significant digits, and the standard error, if any."""
    if value is None:
        return "-"
    return f"{value:.4g}" + (f" ± {error:.2g}" if error is not None else "")


def report(evaluations: Sequence[Evaluation], console: Console) -> None:
    """Print one table per data set and protocol."""
    groups: dict[str, list[Evaluation]] = {}
    for e in evaluations:
        key = f"{e.facts['data']['name']}  " + "  ".join(f"{k}={v}" for k, v in e.facts["protocol"].items() if v)
        groups.setdefault(key, []).append(e)
    for key, group in groups.items():
        console.print(f"[bold]data[/bold] {key}", highlight=False)
        if not any(e.scores for e in group):
            console.print("no metric applies to this model, its data and the chosen suites\n", highlight=False)
            continue
        console.print(table(group))
        classifier = group[0].facts["features"].get("accuracy")
        if classifier is not None:
            console.print(
                f"features of a classifier with accuracy {classifier:.1%} on validation data", highlight=False
            )
        console.print("↓ lower is better  ↑ higher is better  → near real data is better\n", highlight=False)
