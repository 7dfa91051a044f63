"""Drift watch: whether prompts and answers are still as they were.

Three quantities of each language model are watched, each by the Kolmogorov-Smirnov distance between its last values and
its reference:

- the model's loss on prompts, as a rank among the held-out texts that the run keeps: uniform without drift,
- the length of prompts, and the length of answers, both compared with those of the held-out texts. Where the data has
  no prompts with answers, or the run keeps few lengths, they are compared with the first ones of this server.
"""

import logging
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from torch import Tensor

from zoo.data.batch import Batch
from zoo.runs.reference_texts import LENGTH

WINDOW = 256  # values that are compared, and first ones that are the reference
FEWEST = 32  # lengths of held-out texts that are a reference
LEAST = 64  # values before the first comparison
EFFECT = 0.25  # distance that matters, even if many values make a smaller one significant
CRITICAL = 1.95  # times sqrt(1/n + 1/m): a distance that equal distributions exceed in one of a thousand cases
log = logging.getLogger("zoo.serve")


def distance(a: Sequence[float] | NDArray[Any], b: Sequence[float] | NDArray[Any]) -> float:
    """Two-sample Kolmogorov-Smirnov distance: the largest difference of the empirical distribution functions."""
    x, y = np.sort(np.asarray(a, float)), np.sort(np.asarray(b, float))
    at = np.concatenate([x, y])
    share_x, share_y = (np.searchsorted(v, at, "right") / len(v) for v in (x, y))
    return float(np.abs(share_x - share_y).max())


class Watch:
    """The last values of one quantity, and their reference.

    Args:
        reference: values from training; None takes the first `WINDOW` values that are added.
    """

    def __init__(self, reference: Sequence[float] | NDArray[Any] | None = None) -> None:
        self.given = reference is not None
        self.reference: list[float] = [] if reference is None else list(reference)
        self.last: deque[float] = deque(maxlen=WINDOW)
        self.alarm = False  # at the last check

    def add(self, value: float) -> None:
        """Add a value."""
        if not self.given and len(self.reference) < WINDOW:
            self.reference.append(value)
        else:
            self.last.append(value)

    def distance(self) -> float | None:
        """Distance of the last values from the reference; None while there are few."""
        return distance(self.last, self.reference) if len(self.last) >= LEAST else None

    def check(self) -> bool:
        """Whether the alarm has changed."""
        found = self.distance()
        n, m = max(len(self.last), 1), max(len(self.reference), 1)
        before = self.alarm
        self.alarm = found is not None and found > max(EFFECT, CRITICAL * (1 / n + 1 / m) ** 0.5)
        return self.alarm != before


class ModelWatch:
    """The watched quantities of one language model.

    Args:
        model: that generates texts.
        reference: held-out texts of its run, if it keeps some.
        lengths: tokens of held-out prompts and of their answers (M, 2), if it keeps some.
    """

    def __init__(self, model: Any, reference: Batch | None, lengths: Tensor | None = None) -> None:
        self.nats: Tensor | None = None  # (N, T) of the reference texts, NaN where there is no token
        prompts, answers = lengths.T.tolist() if lengths is not None and len(lengths) >= FEWEST else (None, None)
        self.watches = {"prompt_tokens": Watch(prompts), "answer_tokens": Watch(answers)}
        if reference is not None:
            nats, target = losses(model, reference)
            self.nats = nats.masked_fill(target < 0, float("nan"))
            self.watches["prompt_loss"] = Watch((np.arange(WINDOW) + 0.5) / WINDOW)

    def rank(self, model: Any, ids: Sequence[int]) -> float | None:
        """Share of reference texts whose beginning of equal length the model finds likelier; None without a loss."""
        if self.nats is None or len(ids) < 2:
            return None
        row = torch.tensor([list(ids)[: LENGTH + 1]])
        nats, _ = losses(model, Batch(row[:, :-1], row[:, 1:]))
        others = self.nats[:, : nats.shape[1]].nanmean(1)
        others, own = others[~others.isnan()], nats.mean()
        return float((others < own).double().mean() + 0.5 * (others == own).double().mean())


def losses(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Nats (N, T) of each token, and the targets (N, T), on the CPU."""
    with torch.no_grad():
        nats, target = model.token_nll(batch.to(model.device))
    return nats.double().cpu(), target.cpu()


class Drift(Collector):
    """The watches of all models, as gauges."""

    def __init__(self) -> None:
        self.models: dict[str, ModelWatch] = {}

    def add(self, name: str, values: dict[str, float | None]) -> None:
        """Add values of a request, and report each alarm once."""
        for quantity, value in values.items():
            watch = self.models[name].watches.get(quantity) if name in self.models else None
            if watch is None or value is None:
                continue
            watch.add(value)
            if watch.check():
                state = "has drifted from" if watch.alarm else "is again like"
                reference = "the training" if watch.given else "the first requests"
                log.warning("model %s: %s %s %s", name, quantity, state, reference)

    def collect(self) -> Any:
        """Two gauges."""
        far = GaugeMetricFamily(
            "zoo_drift", "Distance of the last requests from the reference.", labels=["model", "quantity"]
        )
        alarm = GaugeMetricFamily("zoo_drift_alarm", "1 while it is large.", labels=["model", "quantity"])
        for name, model in list(self.models.items()):
            for quantity, watch in model.watches.items():
                if (found := watch.distance()) is not None:
                    far.add_metric([name, quantity], found)
                    alarm.add_metric([name, quantity], float(watch.alarm))
        return [far, alarm]
