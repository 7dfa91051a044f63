"""All figures of serving, as Markdown tables. Nothing else should run on the machine.

    python -m tests.serve.figures            # takes about an hour
    python -m tests.serve.figures --quick    # small numbers, to see that everything works

With --python PYTHON, of an environment with transformers[serving] and litserve, the rivals are measured too.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from zoo.benchmarks import serving
from zoo.benchmarks.report import report
from zoo.io.provenance import provenance

TEXT = "gpt-shakespeare"
IMAGES = ("gan-digits", "diffusion-digits")


def tables(quick: bool, python: str | None, only: set[str]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Titles, and rows of one table each, in turn: a row is a measurement."""
    from tests.benchmarks.startup import BARE, first_page, timed
    from tests.benchmarks.test_serving import saved
    from tests.serve.load import Load, measure
    from tests.serve.rivals import compare
    from tests.serve.servers import language_model

    rounds = 1 if quick else 5
    if "page" in only:
        pages = [(first_page(), timed(BARE, BARE)) for _ in range(rounds + 1)][1:]  # the first warms the file cache
        later = median(page - bare for page, bare in pages)
        first, bare = (median(times) for times in zip(*pages, strict=True))
        yield (
            "First page of `zoo serve gan-digits`",
            [
                {
                    "seconds": round(first, 2),
                    "bare imports": round(bare, 2),
                    "after them": round(later, 2),
                    "must": "<= 2",
                }
            ],
        )
    if "text" in only:
        yield f"Texts of {TEXT}", serving.serving_speed(Path(TEXT), rounds)
    if "rivals" in only and python is not None:
        yield "Texts beside other servers", compare("llama", python, rounds)
    if "images" in only:
        for name in IMAGES:
            yield f"Images of {name}", serving.serving_speed(Path(name), 1 if quick else 15)
    if "load" in only:
        load = Load(300, 30, 30) if quick else Load()
        with TemporaryDirectory() as folder:
            yield "Load", [measure(saved(language_model(), Path(folder)), load)]


def main() -> None:
    """Command line."""
    from tests.serve import attacks

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small numbers")
    parser.add_argument("--python", help="of an environment with transformers[serving] and litserve")
    parser.add_argument("--only", nargs="+", default=["page", "text", "rivals", "images", "load", "attacks"])
    parser.add_argument("--out", type=Path, help="JSON of all rows")
    given = parser.parse_args()
    if given.quick:
        serving.ROUND, serving.TOKENS = 0.2, 16
    record: dict[str, Any] = {"command": f"python -m tests.serve.figures {' '.join(sys.argv[1:])}".strip()}
    record |= provenance()
    for title, rows in tables(given.quick, given.python, set(given.only)):
        print(f"\n### {title}\n", flush=True)
        record[title] = rows
        if {"streams", "where"} & rows[0].keys() and not any("zoo_tokens_per_second" in row for row in rows):
            report(rows, Console(width=260))
        else:
            print(markdown(rows), flush=True)
    if "attacks" in given.only:
        text, failed = attacks.table()
        record["Attacks"] = text
        print(f"\n### Attacks\n\n{text}")
        if failed:
            sys.exit(1)
    if given.out is not None:
        given.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def markdown(rows: list[dict[str, Any]]) -> str:
    """Rows with equal keys as a table."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([str(row[name]) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
