"""Continuous batching of text jobs."""

import logging
from typing import Any

from zoo.core.errors import ZooError
from zoo.nn.samplers.continuous_batch import ContinuousBatch, Row
from zoo.serve.errors import APIError
from zoo.serve.jobs import Job, TextJob

log = logging.getLogger("zoo.serve")


class TextScheduler:
    """Text jobs of one model, one token after another.

    Jobs of a decoder that merges states share a batch, also those of one encoder-decoder. Others have their own.

    Args:
        model: that the jobs are for.
        most: rows at a time.
    """

    def __init__(self, model: Any, most: int) -> None:
        self.model, self.most = model, most
        self.jobs: list[TextJob] = []
        self.batches: list[ContinuousBatch] = []
        self._owners: dict[int, TextJob] = {}  # by the identity of the row
        self._reported: list[TextJob] = []

    @property
    def n_rows(self) -> int:
        """Rows that are generated."""
        return sum(len(batch.rows) for batch in self.batches)

    def has_room(self, job: TextJob) -> bool:
        """Whether all rows of a job fit; one alone always does."""
        return not self.jobs or self.n_rows + job.n_rows <= self.most

    def start(self, job: TextJob) -> None:
        """Read the prompts of a job; an error becomes its last event."""
        self._reported.append(job)
        try:
            decoder = job.start(self.model)
            if job.rows:
                self._join(decoder, job)
        except (APIError, ZooError) as error:
            job.finish(error)
        except Exception as error:
            log.exception("a text could not be started")
            job.finish(error)

    def _join(self, decoder: Any, job: TextJob) -> None:
        batch = next((b for b in self.batches if b.fits(decoder)), None)
        if batch is None:
            batch = ContinuousBatch(
                decoder, device=self.model.device, begin=self.model.begin, vocabulary=self.model.vocabulary
            )
        batch.join(job.rows, decoder)
        if batch not in self.batches:
            self.batches.append(batch)
        self.jobs.append(job)
        self._owners |= dict.fromkeys(map(id, job.rows), job)

    def drop(self) -> None:
        """Remove jobs that are over."""
        gone = [job for job in self.jobs if job.over]
        if gone:
            self._remove([row for job in gone for row in job.rows])
            self.jobs = [job for job in self.jobs if not job.over]
            self._reported += gone

    def step(self) -> None:
        """Sample one token of each row."""
        for batch in self.batches:
            finished = []
            for row, drawn in batch.draw():
                if self._owners[id(row)].push(row, drawn):
                    finished.append(row)
            if finished:
                self._remove(finished)
            batch.advance()
        self.batches = [batch for batch in self.batches if batch.rows]
        self._reported += self.jobs
        self.jobs = [job for job in self.jobs if not job.finished]

    def _remove(self, rows: list[Row]) -> None:
        for batch in self.batches:
            batch.leave(rows)
        for row in rows:
            self._owners.pop(id(row), None)

    def fail(self, error: Exception) -> None:
        """End all jobs with an error."""
        for job in self.jobs:
            job.finish(error)
        self._reported += self.jobs
        self.jobs, self.batches, self._owners = [], [], {}

    def reported(self) -> list[Job]:
        """Jobs that may have events since the last call."""
        found, self._reported = self._reported, []
        return list({id(job): job for job in found}.values())
