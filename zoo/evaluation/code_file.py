"""Score the programs that a language model writes."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any, cast

import torch

from zoo.core.errors import ConfigError
from zoo.data.text.code_tasks import BUILTIN, STOPS, CodeTask, read_tasks
from zoo.evaluation.context import Metric
from zoo.evaluation.evaluate import Evaluation, option_words
from zoo.evaluation.execution import OUTCOMES, Limits, execute_all
from zoo.evaluation.suites.likelihood import standard_error
from zoo.evaluation.text_file import load_model
from zoo.io.device import find_device
from zoo.metrics.pass_at_k import pass_at_k
from zoo.models.abilities import SupportsTextGeneration
from zoo.models.ability import supports
from zoo.models.options import parse_options

KS = (1, 10, 100)
BATCH = 64  # programs that are written together
LENGTH = 256  # most tokens of a completion

log = logging.getLogger(__name__)


def evaluate_code(
    run: str | Path,
    file: str | Path = BUILTIN,
    *,
    execute: bool = False,
    answers: int = 10,
    seed: int = 0,
    options: tuple[str, ...] = (),
    limits: Limits | None = None,
    device: str = "cpu",
) -> Evaluation:
    """Estimate pass@k of the programs that a model writes, and count how they end.

    `pass10_of20_temperature=0.8@164_HumanEval` is the unbiased estimate, from 20 completions of each of 164 tasks. A
    completion ends before one of `STOPS`. Tasks with solutions give the reference: the share of solutions that pass.

    Args:
        run: run folder, checkpoint, pretrained model, or folder in the Hugging Face format.
        file: tasks; see `zoo.data.text.code_tasks.read_tasks`.
        execute: the user accepts that programs of the model are executed; see `zoo.evaluation.execution`.
        answers: completions of each task.
        seed: of the completions.
        options: KEY=VALUE, options of the model's `generate`, such as temperature=0.2.
        limits: of each program.
        device: cpu, cuda, cuda:1 ...

    Raises:
        ConfigError: without `execute`; a model that does not generate text.
        DataError: no tasks.
    """
    if not execute:
        raise ConfigError(
            f"--code={file}: executes programs that a model writes, with your rights. Add --execute, best in a "
            "container without secrets."
        )
    tasks, (path, model) = read_tasks(file), load_model(run)
    if not model.spec.text or not supports(model, SupportsTextGeneration):
        raise ConfigError(f"--code: {run} does not generate text. Give a language model.")
    model = model.to(find_device(device)).eval()
    how = parse_options(cast(Any, model).generate, options, model.registered_name)
    name = f"{len(tasks)}_{BUILTIN if str(file) == BUILTIN else Path(file).stem}"
    scores = measure(tasks, complete(model, tasks, answers, seed, how), name, option_words(how), limits)
    facts = {"protocol": {"code": str(file), "seed": seed}, "data": {"name": "code"}, "features": {}}
    return Evaluation(path, facts, scores)


def complete(model: Any, tasks: list[CodeTask], answers: int, seed: int, options: dict[str, Any]) -> list[list[str]]:
    """Completions of each task."""
    given = {"max_new_tokens": LENGTH, **options, "stop": [*STOPS, *options.get("stop", ())]}
    asked = [task.prompt for task in tasks for _ in range(answers)]
    made: list[str] = []
    for start in range(0, len(asked), BATCH):
        made += [done.text for done in model.generate(asked[start : start + BATCH], seed=seed + start, **given)]
    return [made[start : start + answers] for start in range(0, len(made), answers)]


def measure(
    tasks: list[CodeTask], completions: list[list[str]], name: str, how: str = "", limits: Limits | None = None
) -> dict[str, Metric]:
    """Execute completions, as many of each task: pass@k for k of `KS`, and the number of programs with each outcome.

    Args:
        tasks: of which the solutions are executed too.
        completions: of each task.
        name: of the tasks, and their number.
        how: options, as a part of names of metrics.
        limits: of each program.
    """
    drawn = len(completions[0])
    pairs = zip(tasks, completions, strict=True)
    found = execute_all([task.program(made) for task, each in pairs for made in each], limits)
    right = torch.tensor([outcome == "passed" for outcome in found]).view(-1, drawn).sum(1)
    reference = solved(tasks, limits)
    scores: dict[str, Metric] = {}
    for k in (k for k in KS if k <= drawn):
        each = pass_at_k(right, drawn, k)
        error = standard_error(each) if len(tasks) > 1 else None
        scores[f"pass{k}_of{drawn}{how}@{name}"] = Metric(float(each.mean()), "higher", reference, error)
    counts = Counter(found)
    for outcome in OUTCOMES:
        better: Any = "higher" if outcome == "passed" else "lower"
        scores[f"{outcome}_of{len(found)}{how}@{name}"] = Metric(float(counts[outcome]), better)
    return scores


def solved(tasks: list[CodeTask], limits: Limits | None) -> float | None:
    """Share of solutions that pass, None without solutions; a warning names the others."""
    known = [task for task in tasks if task.solution]
    if not known:
        return None
    found = execute_all([task.program(task.solution) for task in known], limits)
    for task, outcome in zip(known, found, strict=True):
        if outcome != "passed":
            log.warning(f"task {task.name}: its own solution does not pass ({outcome})")
    return found.count("passed") / len(known)
