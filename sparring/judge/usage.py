"""What a judge cost: calls, tokens, money, time, and why cases failed."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Usage:
    """Counts of one judge since it was opened. `seconds` are latencies of answered calls, retries included.

    `requests` counts every attempt that went out; `failures` counts cases by reason: those without a reply, and
    those whose reply could not be read.
    """

    price_in: float | None = None
    price_out: float | None = None
    cases: int = 0
    cached: int = 0
    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def cost(self) -> float | None:
        """Price of all tokens, in the currency of the prices; None where no price is set."""
        if self.price_in is None and self.price_out is None:
            return None
        return (self.tokens_in * (self.price_in or 0.0) + self.tokens_out * (self.price_out or 0.0)) / 1e6

    def latency(self, share: float) -> float | None:
        """The quantile of the latencies, in seconds; None before the first reply."""
        if not self.seconds:
            return None
        if len(self.seconds) == 1:
            return self.seconds[0]
        cuts = statistics.quantiles(self.seconds, n=100, method="inclusive")
        return cuts[min(98, max(0, round(100 * share) - 1))]

    def metrics(self) -> dict[str, float]:
        """Everything as numbers, for the ledger. What is unknown is left out."""
        found: dict[str, float | None] = {
            "cases": self.cases,
            "cached": self.cached,
            "requests": self.requests,
            "failed": sum(self.failures.values()),
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "cost": self.cost,
            "p50_s": self.latency(0.5),
            "p95_s": self.latency(0.95),
            **{f"failed: {reason}": count for reason, count in sorted(self.failures.items())},
        }
        return {name: round(float(value), 6) for name, value in found.items() if value is not None}
