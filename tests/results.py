"""Results page: records taken from run folders, and Markdown generated from the records alone.

- results.md: the page, written by `python -m tests.results`
- results/rows.yaml: records and metrics of each table, targets, and published values
- results/NAME.json: one record per run with command, seed, commit, hardware, minutes, metrics of best and last
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from zoo.config.recipes import CONF
from zoo.config.sandbox import read_saved_overrides
from zoo.core.errors import ZooError
from zoo.evaluation.report import format_value
from zoo.io.atomic import write_text
from zoo.runs.folder import RunFolder
from zoo.runs.loggers import EVENTS

KEPT = ("batches", "features", "parameters", "protocol", "sha256")  # fields of an evaluation that a record keeps


def take(run: Path) -> tuple[str, dict[str, Any]]:
    """Return the name and the record of an evaluated run; the name is the experiment, or model and data.

    Raises:
        ZooError: not a run, or not evaluated yet.
    """
    home = RunFolder(run)
    config, measured = home.config(), home.folder / "metrics.json"
    if not measured.is_file():
        raise ZooError(f"{run}: has no metrics.json. Measure it first: zoo evaluate {run}.")
    lines = re.findall(r"^# ([\w-]+): (.*)$", home.config_file.read_text(encoding="utf-8"), re.MULTILINE)
    header = dict(reversed(lines))  # for a resumed run, the first header counts
    asked = dict(override.split("=", 1) for override in read_saved_overrides(home.overrides_file) if "=" in override)
    name = asked.get("experiment") or "-".join(home.folder.name.split("-")[3:])
    metrics = json.loads(measured.read_text(encoding="utf-8"))
    first = next(iter(metrics.values()))
    record = {
        "command": f"python {placeless(header['command'])}",
        "seed": config["seed"],
        "commit": header.get("commit", ""),
        "versions": {k: header[k] for k in ("torch", "pytorch-lightning", "python") if k in header},
        "hardware": header.get("hardware") or first["hardware"],
        "minutes": round(minutes(home.folder), 4),
        "checkpoints": {
            path: {key: found[key] for key in KEPT}
            | {"metrics": {k: {n: v for n, v in m.items() if n != "parts"} for k, m in found["metrics"].items()}}
            for path, found in sorted(metrics.items())
            if path in ("best.ckpt", "last.ckpt")
        },
    }
    return name, record


def placeless(command: str) -> str:
    """Remove folders of one machine from a command: Hydra's output folders, and the parents of other paths."""
    return re.sub(r"=/\S*/([^/\s]+)", r"=\1", re.sub(r" '?hydra\.(run|sweep)\.dir=\S+", "", command))


def minutes(folder: Path) -> float:
    """Return the duration of a run in minutes, from the clock times in its TensorBoard files, one per resume."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    total = 0.0
    for path in sorted(folder.glob(EVENTS)):
        times = [event.wall_time for event in EventFileLoader(str(path)).Load()]
        total += max(times) - min(times)
    return total / 60


def update(page: Path, runs: Sequence[Path]) -> list[Path]:
    """Add records of runs, and regenerate the page from all records; return the written files.

    Args:
        page: Markdown file, beside the folder of the records.
        runs: run folders. NAME=RUN gives a record another name than its experiment, or model and data.

    Raises:
        ZooError: a run that `take` rejects, or no `results/rows.yaml` next to the page.
    """
    folder = page.with_suffix("").with_name("results")
    rows = folder / "rows.yaml"
    if not rows.is_file():
        raise ZooError(f"{rows}: not found. It defines the tables of {page}; restore it, or pass another --page.")
    taken: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        given, _, path = str(run).rpartition("=")
        name, record = take(Path(path))
        taken.setdefault(given or name, []).append(record)
    for name, records in taken.items():
        write_text(folder / f"{name}.json", json.dumps(combined(records), indent=1) + "\n")
    write_text(page, markdown(folder))
    return [*(folder / f"{name}.json" for name in taken), page]


def combined(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one record of runs that differ in their seed: means, and standard deviations in place of errors.

    Raises:
        ZooError: two runs with the same seed.
    """
    if len(records) == 1:
        return records[0]
    records = sorted(records, key=lambda record: record["seed"])
    seeds = [record["seed"] for record in records]
    if len(set(seeds)) < len(seeds):
        raise ZooError(f"{records[0]['command']}: runs have the same seed. Train them with seed=0, seed=1 and so on.")
    record = {**records[0], "seed": ",".join(map(str, seeds)), "minutes": round(mean(r["minutes"] for r in records), 4)}
    record["command"] = re.sub(r"\s*\bseed=\d+", "", record["command"]).replace("train.py", "train.py -m")
    record["command"] += f" seed={record['seed']}"
    record["checkpoints"] = {path: dict(found) for path, found in records[0]["checkpoints"].items()}
    for path, found in record["checkpoints"].items():
        several = [r["checkpoints"][path] for r in records]
        found["sha256"] = [one["sha256"] for one in several]
        found["metrics"] = {
            name: measured | spread([one["metrics"][name]["value"] for one in several])
            for name, measured in found["metrics"].items()
            if all(name in one["metrics"] for one in several)
        }
    return record


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean and standard deviation over training seeds, and the values."""
    return {"value": mean(values), "error": stdev(values), "seeds": list(values)}


def markdown(folder: Path) -> str:
    """Generate the page from the rows and records in a folder."""
    rows = yaml.safe_load((folder / "rows.yaml").read_text(encoding="utf-8"))
    records = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    parts = [rows["introduction"].strip()]
    for section in rows["sections"]:
        parts.append(f"## {section['title']}\n\n{section['text'].strip()}")
        if not section["records"]:
            continue
        parts.append(section_table(section, records))
        commands = "\n".join(command(name, records.get(name)) for name in section["records"])
        how = f"zoo evaluate RUN RUN/last.ckpt {section.get('options', '')}".strip()
        parts.append(f"```bash\n{commands}\n{how}\n```")
    return "\n\n".join(parts) + "\n"


def command(name: str, record: dict[str, Any] | None) -> str:
    """Return the command of a row, with a note if it was not run yet."""
    if record is not None:
        several = "," in str(record["seed"])
        return f"{record['command']}    # {'seeds' if several else 'seed'} {record['seed']}"
    if (CONF / "experiment" / f"{name}.yaml").is_file():
        return f"python train.py experiment={name}    # not run yet"
    model, _, data = name.partition("-")
    return f"python train.py model={model} data={data}    # not run yet"


def section_table(section: dict[str, Any], records: dict[str, Any]) -> str:
    """Format a table: a row per run, a column per metric as "best / last", and a row for the real-data reference."""
    metrics = section["metrics"]
    lines = [
        "| run | " + " | ".join(f"`{m}`" for m in metrics) + " | parameters | minutes | hardware |",
        "|---" * (len(metrics) + 4) + "|",
    ]
    references: dict[str, str] = {}
    for name in section["records"]:
        record = records.get(name)
        if record is None:
            lines.append(f"| {name} |" + " |" * (len(metrics) + 3))
            continue
        cells = []
        for metric in metrics:
            found = [c["metrics"].get(metric) for c in record["checkpoints"].values()]
            cells.append(" / ".join(format_value(s["value"], s["error"]) for s in found if s))
            for s in found:
                if s and s["real_data_reference"] is not None:
                    references[metric] = format_value(s["real_data_reference"])
        size = next(iter(record["checkpoints"].values()))["parameters"]
        facts = f"{size:,} | {record['minutes']:.1f} | {record['hardware']}"
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {facts} |")
    if references:
        lines.append("| *real data* | " + " | ".join(references.get(m, "") for m in metrics) + " | | | |")
    return "\n".join(lines)


def main() -> None:
    """`python -m tests.results [[NAME=]RUN ...] [--page .github/docs/results.md]`."""
    parser = argparse.ArgumentParser(description="Add records of evaluated runs, and write the page of all records.")
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--page", type=Path, default=Path(".github/docs/results.md"))
    given = parser.parse_args()
    try:
        print(*update(given.page, given.runs), sep="\n")
    except ZooError as error:
        sys.exit(f"results: {error}")


if __name__ == "__main__":
    main()
