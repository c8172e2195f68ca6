"""α spending: a look at a candidate's verdicts is paid for before it is taken.

`gate/looks/<round>.json` is written put-if-absent before any verdict is read, so that killing a gate refunds nothing
and a rerun of the same round uses the look it has paid for. What counts against a policy's α is the sum over all looks
at the same champion, whatever policy they were taken under: editing a policy file refills nothing. A promotion starts
a new reign with a fresh α, so that each champion is replaced by a candidate that is not better with chance α at most.
One line's rounds run one after the other (`registry.lock`), which is why the sum needs no lock of its own.
"""

from __future__ import annotations

import uuid
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sparring.errors import ConflictError, CorruptError
from sparring.gate.policy import Policy
from sparring.store.base import Store

_FOLDER = "gate/looks/"
_LEDGER = "looks/"
"""Looks of decisions that belong to no round (`sparring.gate.standalone`), numbered one after the other."""
_ATTEMPTS = 100


class Look(BaseModel):
    """One paid look. `champion` is None in the first run; `alpha` is 0 when nothing was left to pay with."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    schema_version: Literal[1] = 1
    round: int = Field(ge=1)
    champion: str | None
    policy: str
    policy_digest: str
    spent: float = Field(ge=0.0, description="What earlier looks at this champion used.")
    alpha: float = Field(ge=0.0, description="What this look uses.")
    nonce: str
    case: str | None = Field(None, description="Outside rounds: digest of the tables and the policy looked at.")
    suites: str | None = Field(None, description="In rounds: digest of the suites looked at.")
    earlier: int = Field(0, ge=0, description="Earlier rounds' looks at these suites, whoever was champion.")


def reserve(store: Store, *, round: int, champion: str | None, policy: Policy, suites: str | None = None) -> Look:
    """Pays for this round's look, or returns the look that it has paid for. Raises CorruptError, StoreError.

    α belongs to a champion; how often the suites (by digest) were used is counted beside it.
    """
    key = f"{_FOLDER}{round:06d}.json"
    if not store.exists(key):
        others = [look for look in looks(store) if look.round != round]
        spent = sum(look.alpha for look in others if look.champion == champion)
        look = Look(
            round=round,
            champion=champion,
            policy=policy.name,
            policy_digest=policy.digest,
            spent=spent,
            alpha=available(policy, spent),
            nonce=uuid.uuid4().hex,
            suites=suites,
            earlier=sum(look.suites == suites for look in others) if suites else 0,
        )
        store.put_if_absent(key, look.model_dump_json().encode())
    return _read(store, key)


def reserve_case(store: Store, *, case: str, champion: str | None, policy: Policy) -> Look:
    """Pays for a look outside rounds, or returns the look that this case has paid for; `round` numbers the looks.

    Whoever loses the race for a number counts again, so that two gates at once never spend the same α. Raises
    CorruptError, StoreError, and ConflictError when the ledger never stands still.
    """
    for _ in range(_ATTEMPTS):
        known = case_looks(store)
        if mine := next((look for look in known if look.case == case), None):
            return mine
        spent = sum(look.alpha for look in known if look.champion == champion)
        look = Look(
            round=len(known) + 1,
            champion=champion,
            policy=policy.name,
            policy_digest=policy.digest,
            spent=spent,
            alpha=available(policy, spent),
            nonce=uuid.uuid4().hex,
            case=case,
        )
        if store.put_if_absent(f"{_LEDGER}{look.round:06d}.json", look.model_dump_json().encode()):
            return look
    raise ConflictError(f"the ledger {store.url} changed {_ATTEMPTS} times meanwhile", hint="run it again")


def case_looks(store: Store) -> list[Look]:
    """All looks paid outside rounds, in order. Raises CorruptError for a gap: a look that was taken away."""
    found = [_read(store, key) for key in store.list(_LEDGER)]
    for number, look in enumerate(found, start=1):
        if look.round != number:
            raise CorruptError(f"ledger {store.url}: look {number} is missing, look {look.round} is there")
    return found


def available(policy: Policy, spent: float) -> float:
    """Level that one more look may use: alpha/looks, or 0 when that is no longer left."""
    left = policy.alpha - spent
    return policy.alpha_per_look if left >= policy.alpha_per_look * (1 - 1e-9) else 0.0


def looks(store: Store) -> list[Look]:
    """All paid looks of the line, by round."""
    return [_read(store, key) for key in store.list(_FOLDER)]


def _read(store: Store, key: str) -> Look:
    try:
        return Look.model_validate_json(store.get(key))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "file"
        raise CorruptError(f"{key}: {field}: {first['msg']}", hint="a look at α was edited or damaged") from error
