"""Metrics of a step while it works: `SPARRING_METRICS_PORT` names a port, and the step's process serves them there.

For training pods, whose records only come at their end. On loopback unless `SPARRING_METRICS_HOST` says otherwise; of
several training processes the first serves. What is shown is what the step tells of its progress, and the GPUs' state.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from sparring.errors import ConfigError, SetupError
from sparring.monitor import HOST_VARIABLE, PORT_VARIABLE
from sparring.progress import Event, Listener

_NO_CURVES: Final = ("step", "seconds", "tokens", "written", "remaining")


class Live(Collector):
    """What one step told of its progress so far; `update` is a listener of `Progress`."""

    def __init__(self, step: str) -> None:
        self._step = step
        self._stages: dict[str, Event] = {}
        self._numbers: dict[str, float] = {}
        self._tokens = 0.0

    def update(self, event: Event, numbers: Mapping[str, float]) -> None:
        """Takes over one state of one stage, with a training step's numbers (`tokens`, `seconds`, its curves)."""
        self._stages = {**self._stages, event.stage: event}  # a scrape may be reading the one before
        if numbers:
            self._numbers = dict(numbers)
            self._tokens += numbers.get("tokens", 0.0)

    def collect(self) -> Iterator[Metric]:
        """All families; called by every scrape."""
        yield from self._progress()
        yield from self._training()
        yield from _gpus()

    def _progress(self) -> Iterator[Metric]:
        stages = self._stages
        done = GaugeMetricFamily("sparring_live_done", "Units of a stage that are done.", labels=["step", "stage"])
        planned = GaugeMetricFamily("sparring_live_planned", "Units of a stage in all.", labels=["step", "stage"])
        told = GaugeMetricFamily(
            "sparring_live_told_timestamp_seconds", "When progress was last told.", labels=["step"]
        )
        for stage, event in stages.items():
            done.add_metric([self._step, stage], event.done)
            planned.add_metric([self._step, stage], event.total)
        if stages:
            told.add_metric([self._step], max(event.time for event in stages.values()))
        yield from (done, planned, told)

    def _training(self) -> Iterator[Metric]:
        numbers, labels = self._numbers, ["step"]
        tokens = CounterMetricFamily(
            "sparring_live_trained_tokens", "Tokens trained on by this process.", labels=labels
        )
        tokens.add_metric([self._step], self._tokens)
        help_ = "Tokens of the last training step by second of it."
        speed = GaugeMetricFamily("sparring_live_trained_tokens_per_second", help_, labels=labels)
        if numbers.get("seconds") and "tokens" in numbers:
            speed.add_metric([self._step], numbers["tokens"] / numbers["seconds"])
        help_ = "A number of the last training step: loss, kl, mean rewards, shares."
        curves = GaugeMetricFamily("sparring_live_training", help_, labels=["step", "curve"])
        for name, value in numbers.items():
            if name not in _NO_CURVES:
                curves.add_metric([self._step, name], value)
        left = GaugeMetricFamily(
            "sparring_live_remaining_seconds", "About how long the training still takes.", labels=labels
        )
        if "remaining" in numbers:
            left.add_metric([self._step], numbers["remaining"])
        yield from (tokens, speed, curves, left)


def _gpus() -> Iterator[Metric]:
    """Memory of each CUDA device that the step's own torch has opened, and how busy it is where NVML is installed."""
    whole = GaugeMetricFamily("sparring_live_gpu_memory_bytes", "Memory of a GPU.", labels=["gpu"])
    used = GaugeMetricFamily("sparring_live_gpu_memory_used_bytes", "Memory of a GPU in use.", labels=["gpu"])
    busy = GaugeMetricFamily("sparring_live_gpu_utilization_ratio", "Time in which a GPU was at work.", labels=["gpu"])
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            whole.add_metric([str(number)], total)
            used.add_metric([str(number)], total - free)
            if (share := _utilization(torch, number)) is not None:
                busy.add_metric([str(number)], share)
    yield from (whole, used, busy)


def _utilization(torch: Any, number: int) -> float | None:
    try:
        return float(torch.cuda.utilization(number)) / 100
    except (ModuleNotFoundError, RuntimeError):  # NVML is not installed, or the device does not tell
        return None


@contextmanager
def serving(step: str) -> Iterator[Listener]:
    """Serves the step's metrics while the block runs. Raises ConfigError for the port, SetupError when it is taken."""
    live = Live(step)
    if os.environ.get("RANK", "0") != "0":
        yield live.update
        return
    host, port = os.environ.get(HOST_VARIABLE) or "127.0.0.1", _port(os.environ[PORT_VARIABLE])
    registry = CollectorRegistry()
    registry.register(live)
    ProcessCollector(registry=registry)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        hint = f"name another port in {PORT_VARIABLE}, or none"
        raise SetupError(f"cannot serve metrics on {host}:{port}: {error.strerror}", hint=hint) from error
    try:
        yield live.update
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise ConfigError(f"{PORT_VARIABLE} is {text!r}", hint="it should be a port, from 1 to 65535")
    return int(text)
