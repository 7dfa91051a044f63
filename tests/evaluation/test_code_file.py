"""pass@k of generated programs: outcomes of execution, the estimate against all subsets, and the built-in tasks."""

import itertools
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import zoo
from zoo.cli.main import main
from zoo.core.errors import ZooError
from zoo.data.text.code_tasks import STOPS, CodeTask, read_tasks
from zoo.evaluation.code_file import complete, evaluate_code, measure
from zoo.evaluation.execution import OUTCOMES, Limits, execute, execute_all

QUICK = Limits(seconds=2.0, memory=256 << 20, file_size=1000, files=16)


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("assert 1 + 1 == 2", "passed"),
        ("assert 1 + 1 == 3", "wrong"),
        ("1 / 0", "error"),
        ("def f(:", "syntax_error"),
        ("x = '\0'", "syntax_error"),
        ("while True: pass", "timeout"),
        ("import time; time.sleep(60)", "timeout"),
        ("x = bytearray(1 << 30)", "out_of_memory"),
        ("import sys; sys.exit(0)", "error"),
        ("import os; os._exit(0)", "crashed"),
        ("import os; os.kill(os.getpid(), 9)", "crashed"),
        ("import os, sys; os.write(int(sys.argv[1]), b'guess passed'); os._exit(0)", "crashed"),
        ("with open('big', 'w') as file: file.write('x' * 2000)", "error"),
        ("open('small', 'w').write('x' * 500)", "passed"),
        ("x = [open('/dev/null') for _ in range(100)]", "error"),
        ("input()", "error"),
        ("print('x' * (1 << 22)); assert not __import__('os').listdir('.')", "passed"),
        ("import torch", "error"),
    ],
)
def test_each_end_of_a_program_has_a_name(source: str, wanted: str) -> None:
    assert execute(source, QUICK) == wanted


def test_a_process_that_the_program_leaves_behind_is_ended(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    source = f"import os, time\nif not os.fork():\n    time.sleep(1)\n    open({str(mark)!r}, 'w')\n    os._exit(0)\n"
    found = execute(source, QUICK)
    assert found in ("passed", "error"), "without root, a second process is refused"
    time.sleep(1.5)
    assert not mark.exists()


def test_equal_programs_are_executed_once(monkeypatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr("zoo.evaluation.execution.execute", lambda source, limits: seen.append(source) or source)
    assert execute_all(["a", "b", "a"]) == ["a", "b", "a"]
    assert sorted(seen) == ["a", "b"]


def test_the_estimate_is_the_share_of_subsets_that_solve_a_task(monkeypatch) -> None:
    """Three tasks with 4, 1 and 0 right programs of 12, against all subsets of 10; the plug-in estimate is not it."""
    tasks = [CodeTask(str(i), "def f():\n", "def check(f): assert f() == 1", "f") for i in range(3)]
    good, bad, broken = "    return 1\n", "    return 2\n", "    return ((\n"
    made = [[good] * 4 + [bad] * 8, [bad, good] + [broken] * 10, [bad] * 12]
    scores = measure(tasks, made, "3_known", "_t1", QUICK)
    exact = plug_in = 0.0
    for each in made:
        hits = [one == good for one in each]
        subsets = [any(some) for some in itertools.combinations(hits, 10)]
        exact += sum(subsets) / len(subsets) / 3
        plug_in += (1 - (1 - sum(hits) / 12) ** 10) / 3
    assert scores["pass10_of12_t1@3_known"].value == pytest.approx(exact, abs=1e-12)
    assert abs(plug_in - exact) > 0.05, "the control: the biased estimate is another number"
    assert scores["pass1_of12_t1@3_known"].value == pytest.approx(5 / 36)
    assert "pass100_of12_t1@3_known" not in scores
    counts = {name: scores[f"{name}_of36_t1@3_known"].value for name in OUTCOMES}
    assert counts == dict.fromkeys(OUTCOMES, 0) | {"passed": 5, "wrong": 21, "syntax_error": 10}


def test_the_builtin_tasks_are_solved_by_their_solutions_alone(caplog) -> None:
    tasks = read_tasks("builtin")
    assert len(tasks) == 12
    assert all(task.solution for task in tasks)
    scores = measure(tasks, [[task.solution, "    return None\n"] for task in tasks], "12_builtin", limits=QUICK)
    assert scores["pass1_of2@12_builtin"].value == 0.5, "the control: None solves none of them"
    assert scores["pass1_of2@12_builtin"].real_data_reference == 1
    broken = [CodeTask("odd", "def f():\n", "def check(f): assert f()", "f", "    return 0\n")]
    assert measure(broken, [["    return 1\n"]], "1_odd", limits=QUICK)["pass1_of1@1_odd"].real_data_reference == 0
    assert "task odd: its own solution does not pass (wrong)" in caplog.text


def test_completions_belong_to_their_tasks_and_end_with_the_function() -> None:
    asked: list[tuple[str, int]] = []

    def generate(prompts: list[str], *, seed: int, stop: list[str], max_new_tokens: int, temperature: float) -> Any:
        asked.extend((prompt, seed) for prompt in prompts)
        assert stop == [*STOPS, "END"]
        assert (max_new_tokens, temperature) == (7, 0.5)
        return [SimpleNamespace(text=f"{prompt}:{i}") for i, prompt in enumerate(prompts)]

    tasks = [CodeTask(str(i), f"p{i}", "t") for i in range(10)]
    options = {"stop": ["END"], "max_new_tokens": 7, "temperature": 0.5}
    made = complete(SimpleNamespace(generate=generate), tasks, 10, 3, options)
    assert [{text.partition(":")[0] for text in each} for each in made] == [{f"p{i}"} for i in range(10)]
    assert {seed for _, seed in asked} == {3, 67}, "other random numbers in each batch"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "def f():\n"}, r"line 1 of .*: test is not a text\. Tasks have prompt and test"),
        ({"prompt": "", "test": "x"}, "prompt is not a text"),
        ({"prompt": "a", "test": "b", "entry_point": "f()"}, r"entry_point=f\(\) is not a name"),
    ],
)
def test_broken_tasks_are_named(record: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text(json.dumps(record))
    with pytest.raises(ZooError, match=message):
        read_tasks(file)
    file.write_text("\n")
    with pytest.raises(ZooError, match="has no tasks"):
        read_tasks(file)
    with pytest.raises(ZooError, match=r"--code=.*none.jsonl: no such file\. Give tasks"):
        read_tasks(tmp_path / "none.jsonl")


def test_the_command_executes_on_demand_only(tmp_path: Path, cli, monkeypatch) -> None:
    source = tmp_path / "code.txt"
    source.write_text("".join(f"def f{i}(a):\n    return a + {i}\n" for i in range(300)))
    data = zoo.create_data("text", path=str(source), tokenizer="char", context=64)
    data.setup()
    model = zoo.create_model("gpt", data=data, backbone={"d_model": 16, "n_layers": 1, "n_heads": 1})
    monkeypatch.setattr("zoo.evaluation.code_file.load_model", lambda run: (tmp_path / "best.ckpt", model))
    with pytest.raises(ZooError, match=r"--code=builtin: executes programs .*\. Add --execute"):
        evaluate_code("run")
    for words, message in (
        (("--execute",), "--execute: needs --code"),
        (("--code", "builtin", "--text", str(source)), "not together with --text"),
        (("--code", "builtin"), "--code=builtin: executes programs"),
        (("--code", "builtin", "--execute", "max_new_tokens=-2"), "max_new_tokens=-2 is out of range"),
    ):
        refused = cli("evaluate", "run", *words, entry=main)
        assert refused.code != 0
        assert message in refused.err.replace("\n", " ")
    given = ("--execute", "--answers", "2", "max_new_tokens=8")
    shown = cli("evaluate", "run", "--code", "builtin", *given, entry=main)
    assert shown.code == 0, shown.err
    assert "pass1_of2_" in shown.out
    assert "syntax_error_of24_" in shown.out
