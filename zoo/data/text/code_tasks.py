"""Programming tasks with tests, in the format of HumanEval (Chen et al. 2021, 2107.03374)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.core.errors import DataError
from zoo.data.text.records import Broken, read_records

BUILTIN = "builtin"  # name of the tasks beside this file
STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")  # a completion is the body of one function: section 2.1


@dataclass(frozen=True)
class CodeTask:
    """A task.

    Args:
        name: of the task.
        prompt: beginning of the program, which a model continues.
        test: program that follows the completion.
        entry_point: name of the function, an argument of the test's `check`; empty where the test calls it.
        solution: continuation of the prompt that passes; empty if there is none.
    """

    name: str
    prompt: str
    test: str
    entry_point: str = ""
    solution: str = ""

    def program(self, completion: str) -> str:
        """Prompt, completion and test as one program."""
        call = f"check({self.entry_point})\n" if self.entry_point else ""
        return f"{self.prompt}{completion}\n{self.test}\n{call}"


def read_tasks(file: str | Path) -> list[CodeTask]:
    """Read tasks from records of the fields task_id, prompt, test, entry_point and canonical_solution.

    Args:
        file: see `zoo.data.text.records` for its kinds; "builtin" is a small set in this package.

    Raises:
        DataError: no such file, no tasks, or one without a prompt or a test.
    """
    path = Path(__file__).with_suffix(".jsonl") if str(file) == BUILTIN else Path(file)
    if not path.is_file():
        raise DataError(f"--code={file}: no such file. Give tasks in the format of HumanEval, or builtin.")
    tasks = []
    for number, (where, values) in enumerate(read_records(path, Broken())):

        def text(field: str, needed: bool = False, values: dict[str, Any] = values, where: str = where) -> str:
            value = values.get(field)
            if isinstance(value, str) and (value or not needed):
                return value
            if value is None and not needed:
                return ""
            raise DataError(f"{where}: {field} is not a text. Tasks have prompt and test, as in HumanEval.")

        name = str(values.get("task_id", number))
        task = CodeTask(name, text("prompt", True), text("test", True), text("entry_point"), text("canonical_solution"))
        if task.entry_point and not task.entry_point.isidentifier():
            raise DataError(f"{where}: entry_point={task.entry_point} is not a name of a function. Correct it.")
        tasks.append(task)
    if not tasks:
        raise DataError(f"{path}: has no tasks. Give one JSON object per line, with prompt and test.")
    return tasks
