"""A judge behind an OpenAI-compatible endpoint: cases in, verdicts out, and void for whatever went wrong.

cases ─► cache ─► one call each, so many at once ─► strict parser ─► the seed's label ─► verdicts
                    └─► failures in a row, or time is up ─► every remaining case is void at once
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from sparring.config.judges import EndpointConfig
from sparring.judge.cache import VerdictCache, content_key
from sparring.judge.client import CallFailed, Client, secrets_of
from sparring.judge.formats import Format, make_format
from sparring.judge.protocol import JudgeCase, Verdict
from sparring.judge.text import clean, degenerate
from sparring.judge.usage import Usage
from sparring.store.base import Store
from sparring.store.canonical import canonical, sha256

_FLUSH = 256
"""Verdicts after which the cache is written: what a kill can cost."""
REST = 60.0
"""Seconds after which an endpoint that was given up is tried again, by one failure at most."""


class EndpointJudge:
    """Judges through an endpoint. `usage` counts what it cost; verdicts are cached by content."""

    batch = 1024
    """Cases that a caller should hand over at once: requests run dry at the end of each batch."""

    def __init__(self, name: str, config: EndpointConfig, store: Store | None = None) -> None:
        """Raises ConfigError for a secret that is not in the environment."""
        self.name, self._config = name, config
        self._format = make_format(config)
        self._secrets = secrets_of(name, config)
        self.id = judge_id(name, config, self._format)
        self.usage = Usage(config.price_in, config.price_out)
        self._cache = VerdictCache(self.id, store)
        self._breaker = _Breaker(config.give_up_after)
        self._seconds = 60.0 * config.max_minutes

    def judge(self, cases: Sequence[JudgeCase]) -> list[Verdict]:
        """One verdict a case, in order. Equal cases are asked once. Raises StoreError of the cache, nothing else."""
        keys = [content_key(self.id, case) for case in cases]
        found = {key: self._cache.get(key) for key in keys}
        asked = {key: case for key, case in zip(keys, cases, strict=True) if found[key] is None}
        start = time.monotonic()
        try:
            if asked:
                found.update(asyncio.run(_Batch(self, start + self._seconds).run(asked)))
        finally:
            self._seconds -= time.monotonic() - start
            self._cache.flush()
        self.usage.cases += len(cases)
        self.usage.cached += len(cases) - len(asked)
        return [self._finished(case, found[key]) for key, case in zip(keys, cases, strict=True)]

    def _finished(self, case: JudgeCase, said: Verdict | None) -> Verdict:
        """The judge's word with what does not come from the judge: the seed's label, and whether the answer is text."""
        if said is None or not said.ok:
            return said or Verdict.void("not judged")
        truth = said.prompt_harmful if case.seed_label is None else case.seed_label == "harmful"
        verdict = replace(said, prompt_harmful=truth, degenerate=degenerate(clean(case.answer)))
        if self._format.presumes_harm and case.seed_label == "benign":
            return replace(verdict, harmful=False, score=1)
        return verdict


def judge_id(name: str, config: EndpointConfig, fmt: Format) -> str:
    """Name and digest of format, template, model, decoding and threshold. Where it is served is no part of it."""
    decides = [fmt.digest, config.model, config.max_tokens or fmt.max_tokens, 0.0]
    return f"{name}@{sha256(canonical(decides))[:12]}"


@dataclass
class _Breaker:
    """Counts failures in a row. Once open it lets nothing through for `REST` seconds."""

    limit: int
    failures: int = 0
    reason: str = ""
    opened: float = 0.0

    def failed(self, reason: str) -> None:
        self.failures, self.reason = self.failures + 1, reason
        if self.failures == self.limit:
            self.opened = time.monotonic()

    def succeeded(self) -> None:
        self.failures = 0

    @property
    def open(self) -> bool:
        if self.failures >= self.limit and time.monotonic() - self.opened > REST:
            self.failures = self.limit - 1
        return self.failures >= self.limit


@dataclass
class _Batch:
    """One batch of calls in one event loop."""

    judge: EndpointJudge
    deadline: float
    verdicts: dict[str, Verdict] = field(default_factory=dict)

    async def run(self, cases: dict[str, JudgeCase]) -> dict[str, Verdict]:
        """A verdict for each case. So many workers as may ask at once take cases from one queue."""
        judge = self.judge
        waiting = iter(cases.items())
        async with Client(judge._config, judge._format, judge._secrets) as client:
            workers = min(judge._config.concurrency, len(cases))
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(workers):
                        group.create_task(self._work(client, waiting))
            except BaseExceptionGroup as group:  # a store that fails, or Ctrl-C: as if there were no tasks
                raise group.exceptions[0] from None
            finally:
                judge.usage.requests += client.requests
        return self.verdicts

    async def _work(self, client: Client, waiting: Iterator[tuple[str, JudgeCase]]) -> None:
        for key, case in waiting:
            self.verdicts[key] = await self._one(client, key, case)

    async def _one(self, client: Client, key: str, case: JudgeCase) -> Verdict:
        judge, left = self.judge, self.deadline - time.monotonic()
        if judge._breaker.open:
            return self._void(f"endpoint given up after {judge._breaker.limit} failures: {judge._breaker.reason}")
        if left <= 0:
            return self._void(f"{judge._config.max_minutes:g} minutes of judging are over")
        try:
            reply = await client.ask(judge._format.build(case.prompt, case.answer), left)
        except CallFailed as failed:
            if failed.endpoint:
                judge._breaker.failed(failed.reason)
            return self._void(failed.reason)
        judge._breaker.succeeded()
        judge.usage.seconds.append(reply.seconds)
        judge.usage.tokens_in += reply.tokens_in
        judge.usage.tokens_out += reply.tokens_out
        verdict = judge._format.parse(reply.text)
        if not verdict.ok:
            judge.usage.failures["unreadable reply"] += 1
            return verdict
        judge._cache.add(key, verdict)
        if judge._cache.waiting >= _FLUSH:
            judge._cache.flush()
        return verdict

    def _void(self, reason: str) -> Verdict:
        self.judge.usage.failures[reason] += 1
        return Verdict.void(f"{self.judge.name}: {reason}")
