"""One thread for each loaded model, which alone runs it: texts in a continuous batch, and other calls between steps."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar, cast

from torch import nn

from zoo.models.base import Model
from zoo.nn.kernels.decode_step import passive
from zoo.serve.errors import queue_full, timed_out
from zoo.serve.jobs import Job, TextJob, put_all
from zoo.serve.limits import Limits
from zoo.serve.scheduler import TextScheduler

T = TypeVar("T")
BRIEF = 2e-3  # seconds of calls whose answers are delivered together: two threads that take turns are slower
log = logging.getLogger("zoo.serve")


class Interrupted(Exception):
    """A call whose client has gone away, or whose time is over."""


class CallJob(Job):
    """A function of the model, and its result."""

    def __init__(self, function: Callable[[Any], Any], seconds: float) -> None:
        super().__init__(seconds)
        self.function = function


def networks(model: nn.Module) -> list[nn.Module]:
    """The networks of a model, and of models inside it: a sampler passes through at least one of them."""
    found = []
    for child in model.children():
        found += networks(child) if isinstance(child, Model) else [child]
    return found


class Engine(threading.Thread):
    """The thread that owns a model.

    Cancellation and time limits take effect between two tokens of a text, and otherwise between two passes of a
    network.

    Args:
        name: of the model.
        model: loaded, in evaluation mode.
        limits: of rows, queue and time.
        loop: the event loop that jobs come from.
    """

    def __init__(self, name: str, model: Model, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(name=f"zoo-serve-{name}", daemon=True)
        self.model, self.model_name, self.limits, self.loop = model, name, limits, loop
        self.inbox: SimpleQueue[Job | None] = SimpleQueue()
        self.waiting: deque[Job] = deque()
        self.scheduler = TextScheduler(model, limits.rows)
        self.current: Job | None = None
        self.held: list[Job] = []  # calls that have ended, the first begun at `held_since`, and are not delivered yet
        self.held_since = 0.0
        self.stopping = False
        for network in networks(model):
            network.register_forward_pre_hook(self._check)

    # -- on the event loop ---------------------------------------------------------------------------------------

    @property
    def n_waiting(self) -> int:
        """Requests that wait."""
        return len(self.waiting) + self.inbox.qsize()

    @property
    def n_running(self) -> int:
        """Requests that the model works on."""
        return len(self.scheduler.jobs) + (self.current is not None)

    def submit(self, job: Job) -> None:
        """Put a job into the queue.

        Raises:
            APIError: the queue is full.
        """
        if self.n_waiting >= self.limits.queue:
            raise queue_full(self.model_name, self.n_waiting)
        self.inbox.put(job)

    async def call(self, function: Callable[[Any], T], seconds: float | None = None) -> T:
        """Run a function of the model in the thread; if this task is cancelled, so is the call.

        Raises:
            APIError: the queue is full, or the time is over.
            Exception: that of the function.
        """
        job = CallJob(function, self.limits.seconds if seconds is None else seconds)
        self.submit(job)
        try:
            return cast(T, await job.next_event())
        finally:
            job.cancelled = True

    def stop(self) -> None:
        """End the thread after the jobs that it has."""
        self.stopping = True
        self.inbox.put(None)

    # -- in the thread -------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until `stop`."""
        while True:
            busy = bool(self.waiting or self.scheduler.jobs)
            if self.stopping and not busy and self.inbox.empty():
                return
            self._receive(block=not busy)
            self._admit()
            try:
                self.scheduler.step()
            except Exception as error:
                log.exception("model %s failed", self.model_name)
                self.scheduler.fail(error)
            self._deliver()

    def _receive(self, block: bool) -> None:
        try:
            while True:
                job = self.inbox.get(block=block)
                block = False
                if job is not None:
                    self.waiting.append(job)
        except Empty:
            return

    def _admit(self) -> None:
        """Drop jobs that are over, run one call or several brief ones, and start texts while there is room."""
        now = time.monotonic()
        for job in [*self.waiting, *self.scheduler.jobs]:
            if not job.cancelled and now > job.deadline:
                job.finish(timed_out(job.seconds))
        over = [job for job in self.waiting if job.over]
        self.waiting = deque(job for job in self.waiting if not job.over)
        self.scheduler.drop()
        self._deliver(*over)
        for job in list(self.waiting):
            if isinstance(job, TextJob):
                if self.held or not self.scheduler.has_room(job):
                    break  # first come, first served
                self.waiting.remove(job)
                self.scheduler.start(job)
            else:
                self.waiting.remove(job)
                self._run(cast(CallJob, job))
                if self.scheduler.jobs or not self.held:
                    break  # texts that run get a step between two calls
        self._release()

    def _run(self, job: CallJob) -> None:
        begun = time.monotonic()
        self.current = job
        try:
            job.finish(job.function(self.model))
        except Interrupted:
            if not job.cancelled:
                job.finish(timed_out(job.seconds))
        except Exception as error:
            job.finish(error)
        finally:
            self.current = None
        self.held_since = self.held_since if self.held else begun
        self.held.append(job)
        self._release(BRIEF)

    def _release(self, seconds: float = 0.0) -> None:
        """Deliver answers of calls, if the first of them began so many seconds ago."""
        if self.held and time.monotonic() - self.held_since >= seconds:
            held, self.held = self.held, []
            self._deliver(*held)

    def _deliver(self, *jobs: Job) -> None:
        """Hand events to the event loop, all at once."""
        found = [(job, job.take()) for job in (*jobs, *self.scheduler.reported()) if job.has_events]
        if found and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(put_all, found)

    @passive
    def _check(self, *_: Any) -> None:
        """Deliver what has waited, and interrupt the current call, before a pass of a network."""
        self._release(BRIEF)
        job = self.current
        if job is not None and (job.cancelled or time.monotonic() > job.deadline):
            raise Interrupted
