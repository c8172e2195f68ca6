"""Verdicts already paid for, by content: SHA-256 of judge id, prompt and answer.

They lie in the line's store as `judge/cache/<judge>/<sha256>.jsonl`, each object written once and named by its
content: a process may be killed at any moment, several may write at once, and an object that is not what its name
says is passed over. A void verdict is never kept. The seed's label is no part of the key: it is applied afterwards.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from sparring.judge.protocol import JudgeCase, Verdict
from sparring.store.base import Store
from sparring.store.canonical import canonical, sha256

FOLDER = "judge/cache/"
_LABELS = ("prompt_harmful", "refused", "harmful")


def content_key(judge: str, case: JudgeCase) -> str:
    """SHA-256 of judge id, prompt and answer. Total on any text."""
    digest = hashlib.sha256()
    for part in (judge, case.prompt, case.answer):
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


class VerdictCache:
    """One judge's verdicts by content. Without a store it remembers what this process has judged, and no more."""

    def __init__(self, judge: str, store: Store | None = None) -> None:
        self._store, self._folder = store, f"{FOLDER}{sha256(judge.encode())[:16]}/"
        self._known: dict[str, Verdict] = {}
        self._fresh: dict[str, Verdict] = {}
        self._loaded = store is None

    def get(self, key: str) -> Verdict | None:
        """The verdict of this content, or None. The first call reads the store; raises StoreError."""
        if not self._loaded:
            self._load()
        return self._known.get(key)

    def add(self, key: str, verdict: Verdict) -> None:
        """Keeps a judged case in memory until `flush`. A void one is not kept."""
        if verdict.ok and key not in self._known:
            self._known[key] = self._fresh[key] = verdict

    @property
    def waiting(self) -> int:
        """Verdicts that are not yet in the store."""
        return len(self._fresh)

    def flush(self) -> None:
        """Writes what was added since, as one object. Raises StoreError."""
        if self._store is not None and self._fresh:
            data = b"\n".join(canonical(_record(key, verdict)) for key, verdict in sorted(self._fresh.items()))
            self._store.put(f"{self._folder}{sha256(data)}.jsonl", data)
        self._fresh = {}

    def _load(self) -> None:
        assert self._store is not None
        self._loaded = True
        for name in self._store.list(self._folder):
            data = self._store.get(name)
            if name == f"{self._folder}{sha256(data)}.jsonl":
                self._known.update(_read(data))


def _record(key: str, verdict: Verdict) -> dict[str, Any]:
    return {"key": key, "score": verdict.score, **{label: getattr(verdict, label) for label in _LABELS}}


def _read(data: bytes) -> dict[str, Verdict]:
    rows: Sequence[Mapping[str, Any]] = [json.loads(line) for line in data.splitlines()]
    return {row["key"]: Verdict(**{label: row[label] for label in (*_LABELS, "score")}, status="ok") for row in rows}
