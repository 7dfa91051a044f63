"""Counters and histograms for Prometheus, and the request log."""

import json
import logging
import time
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
TOKEN_TIMES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
log = logging.getLogger("zoo.serve.requests")


class QueueCollector(Collector):
    """Numbers of running and waiting requests, read from the engines when they are asked for."""

    def __init__(self) -> None:
        self.read: Callable[[], dict[str, tuple[int, int]]] = dict

    def collect(self) -> Any:
        """Two gauges."""
        running = GaugeMetricFamily("zoo_requests_running", "Requests that a model works on.", labels=["model"])
        waiting = GaugeMetricFamily("zoo_requests_waiting", "Requests that wait for a model.", labels=["model"])
        for name, (n_running, n_waiting) in self.read().items():
            running.add_metric([name], n_running)
            waiting.add_metric([name], n_waiting)
        return [running, waiting]


class Metrics:
    """All metrics of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.queue = QueueCollector()
        self.registry.register(self.queue)
        self.prompt_tokens = self._counter("zoo_prompt_tokens", "Tokens of prompts.")
        self.generation_tokens = self._counter("zoo_generation_tokens", "Generated tokens.")
        self.images = self._counter("zoo_images", "Generated pictures.")
        self.success = self._counter("zoo_request_success", "Finished choices.", "finish_reason")
        self.responses = Counter("zoo_http_responses", "Answers by status.", ["status"], registry=self.registry)
        self.first_token = self._histogram("zoo_time_to_first_token_seconds", "Until the first text.", LATENCIES)
        self.between_tokens = self._histogram("zoo_inter_token_latency_seconds", "Between two texts.", TOKEN_TIMES)
        self.latency = self._histogram("zoo_e2e_request_latency_seconds", "Of whole requests.", LATENCIES)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, ["model", *labels], registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, ["model"], buckets=buckets, registry=self.registry)

    def render(self) -> bytes:
        """Prometheus' text format."""
        return bytes(generate_latest(self.registry))


def log_request(values: dict[str, Any]) -> None:
    """Write one line of JSON; it holds no prompts, no texts and no keys."""
    log.info(json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z")} | values))
