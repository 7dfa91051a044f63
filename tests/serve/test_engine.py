"""Brief calls of a model's thread are answered together, and none waits for a long one."""

import asyncio
import threading
from typing import Any

import pytest
import torch

from tests.serve.servers import picture_model
from zoo.serve import engine as module
from zoo.serve.engine import Engine
from zoo.serve.limits import Limits

SECONDS = 2.0  # that the long call waits for the answer of the brief one


async def answers(calls: list[Any]) -> list[Any]:
    """Answers of calls that all wait before the thread begins."""
    engine = Engine("digits", picture_model(), Limits(), asyncio.get_running_loop())
    tasks = [asyncio.create_task(engine.call(call)) for call in calls]
    await asyncio.sleep(0)  # each is in the queue
    assert engine.n_waiting == len(calls)
    engine.start()
    try:
        return list(await asyncio.gather(*tasks, return_exceptions=True))
    finally:
        engine.stop()
        await asyncio.to_thread(engine.join, 10)


@pytest.mark.parametrize("together", [False, True])
def test_a_brief_call_is_answered_while_a_long_one_runs(together: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a limit of the time that answers wait for others, it is not: the negative control."""
    if together:
        monkeypatch.setattr(module, "BRIEF", 2 * SECONDS)
    answered = threading.Event()

    def brief(model: Any) -> str:
        return "brief"

    def long(model: Any) -> bool:
        """Passes of the network until the other answer is there, at most for some seconds."""
        for _ in range(int(SECONDS / 0.01)):
            model.sample(1, seed=0)
            if answered.wait(0.01):
                return True
        return False

    async def run() -> list[Any]:
        engine = Engine("digits", picture_model(), Limits(), asyncio.get_running_loop())
        first = asyncio.create_task(engine.call(brief))
        first.add_done_callback(lambda _: answered.set())
        second = asyncio.create_task(engine.call(long))
        await asyncio.sleep(0)
        engine.start()
        try:
            return list(await asyncio.gather(first, second))
        finally:
            engine.stop()
            await asyncio.to_thread(engine.join, 10)

    assert asyncio.run(run()) == ["brief", not together]


def test_each_call_has_its_own_answer_or_error() -> None:
    def fail(model: Any) -> None:
        raise ValueError("Mine.")

    found = asyncio.run(answers([lambda model: 1, fail, lambda model: model.sample(2, seed=3), lambda model: 4]))
    assert (found[0], str(found[1]), found[3]) == (1, "Mine.", 4)
    assert torch.equal(found[2], picture_model().sample(2, seed=3)), "the same as alone"


def test_brief_calls_are_delivered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop is called once for all that wait; with no time to wait, once for each: the negative control."""
    counts = []
    for seconds in (60.0, 0.0):
        monkeypatch.setattr(module, "BRIEF", seconds)
        delivered = list[int]()
        monkeypatch.setattr(module, "put_all", counted(delivered))
        assert asyncio.run(answers([lambda model, i=i: i for i in range(5)])) == list(range(5))
        counts.append(delivered)
    assert counts == [[5], [1] * 5]


def counted(found: list[int]) -> Any:
    """`put_all`, which also counts its jobs."""
    from zoo.serve.jobs import put_all

    def put(jobs: list[Any]) -> None:
        found.append(len(jobs))
        put_all(jobs)

    return put
