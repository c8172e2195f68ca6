"""Every metric that the code can serve, as the table in docs/monitoring.md has it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prometheus_client.core import Metric

from sparring.monitor.exporter import Watch
from sparring.monitor.facts import LineFacts, Totals
from sparring.monitor.families import families
from sparring.monitor.live import Live
from sparring.store.local import LocalStore

SUFFIX = {"counter": "_total", "info": "_info"}
LABELS = {
    "sparring_build": ("version",),
    "sparring_champion": ("line", "digest", "round", "reference"),
}
"""Of infos, whose labels stand in their samples."""


def exported() -> list[Metric]:
    """Families of the exporter, in order."""
    nothing = LineFacts(line="x", totals=Totals(), last=None, measured=None, judged=None, reign=None)
    own = Watch(LocalStore(Path("nowhere")), ["x"]).collect()
    return [*own, *families([nothing])]


def live() -> list[Metric]:
    """Families of a step at work, in order."""
    return list(Live("selfplay").collect())


def names(found: Iterable[Metric]) -> set[str]:
    """As they stand in queries."""
    return {name_of(metric) for metric in found}


def name_of(metric: Metric) -> str:
    """With the suffix that a query needs."""
    return metric.name + SUFFIX.get(metric.type, "")


def table(found: Iterable[Metric]) -> list[str]:
    """Rows of a Markdown table."""
    return [
        f"| `{name_of(metric)}` | {metric.type} | {', '.join(_labels(metric)) or '–'} | {metric.documentation} |"
        for metric in found
    ]


def _labels(metric: Metric) -> tuple[str, ...]:
    return LABELS.get(metric.name) or tuple(getattr(metric, "_labelnames", ()))


if __name__ == "__main__":
    for part in (exported(), live()):
        print("| metric | type | labels | what |\n|---|---|---|---|", *table(part), "", sep="\n")
