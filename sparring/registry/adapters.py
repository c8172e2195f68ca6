"""Which adapters a round with `selfplay.adapters: per_role` left: `rounds/<n>/selfplay/adapters.json`.

Adapters are stored like checkpoints, under their digest, but no log names them: nothing exports or serves them. The
base stays the same from round to round, and both adapters go on from where an earlier round left them:

    round 1: base ── defender 1 ─► candidate 1 (promoted)        round 2 starts from candidate 1:
                  └─ attacker 1                                   base ── defender 1 …, attacker 1 …

The attacker goes on from the latest round on the same base, promoted or not: the gate says nothing about attackers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sparring.errors import CorruptError
from sparring.store.base import Store
from sparring.store.canonical import canonical

_KEY = re.compile(r"rounds/(\d{6,})/selfplay/adapters\.json")
_DIGEST = r"^[0-9a-f]{64}$"


class AdapterRecord(BaseModel):
    """Digests of a round's base, its two adapters and its candidate, which is the base with the defender's merged."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: int = 1
    base: str = Field(pattern=_DIGEST)
    attacker: str = Field(pattern=_DIGEST)
    defender: str = Field(pattern=_DIGEST)
    candidate: str = Field(pattern=_DIGEST)

    @property
    def digests(self) -> frozenset[str]:
        """All of them."""
        return frozenset((self.base, self.attacker, self.defender, self.candidate))


@dataclass(frozen=True)
class Lineage:
    """What a round trains: the frozen base, and the adapters to go on from, None for new ones."""

    base: str
    attacker: str | None = None
    defender: str | None = None


def adapters_key(number: int) -> str:
    """Where a round's record lies."""
    return f"rounds/{number:06d}/selfplay/adapters.json"


def put_adapters(store: Store, number: int, record: AdapterRecord) -> None:
    """Stores a round's record; a round that is played again replaces it."""
    store.put(adapters_key(number), canonical(record.model_dump()))


def read_adapters(store: Store, number: int) -> AdapterRecord:
    """A round's record. Raises NotFoundError, and CorruptError naming the key."""
    key = adapters_key(number)
    try:
        record = AdapterRecord.model_validate_json(store.get(key))
    except ValidationError as error:
        raise CorruptError(f"{key!r} in {store.url} is no record of adapters") from error
    if record.schema_version != 1:
        raise CorruptError(f"{key!r} in {store.url} has version {record.schema_version}, known is 1", hint="update")
    return record


def lineage(store: Store, start: str, number: int) -> Lineage:
    """What round `number`, which starts from checkpoint `start`, goes on from. Raises CorruptError."""
    found = list(_before(store, number))
    of_start = next((record for record in found if record.candidate == start), None)
    base = of_start.base if of_start else start
    attacker = next((record.attacker for record in found if record.base == base), None)
    return Lineage(base, attacker, of_start.defender if of_start else None)


def adapters_of(store: Store, candidate: str) -> AdapterRecord | None:
    """The latest record whose candidate this checkpoint is; None for one that was trained without adapters."""
    return next((record for record in _before(store, None) if record.candidate == candidate), None)


def _before(store: Store, number: int | None) -> Iterator[AdapterRecord]:
    """Records of the rounds before `number` (None: of all), the latest first."""
    found = sorted(int(match[1]) for key in store.list("rounds/") if (match := _KEY.fullmatch(key)))
    for known in reversed(found):
        if number is None or known < number:
            yield read_adapters(store, known)
