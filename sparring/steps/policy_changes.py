"""A changed policy is a recorded act: before the first look under it is paid, the champion log says what changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import ValidationError

from sparring.errors import ConflictError, CorruptError
from sparring.gate.policy import Policy
from sparring.gate.policy_difference import differences
from sparring.registry.champion import ChampionLog, append, read_log
from sparring.store.base import Store

if TYPE_CHECKING:
    from sparring.steps.gate import GateInputs, GateRecord

_ATTEMPTS = 20
_MOST_DIFFERENCES = 5


def record_change(
    store: Store,
    inputs: GateInputs,
    policy: Policy,
    read: Callable[[Store, str], GateRecord],
    key: Callable[[int], str],
) -> None:
    """Appends a `policy_change` unless the last decision of the same kind (first run, or later) had this policy.

    `read` and `key` are the gate's own `read_record` and `decision_key`. Raises CorruptError, StoreError, and
    ConflictError when the log never stands still.
    """
    for _ in range(_ATTEMPTS):
        log = read_log(store)
        before = _recorded(log, inputs.first_run) or _decided(store, inputs, read, key)
        if before is None or before.digest == policy.digest:
            return
        try:
            _append(store, log.head, inputs, before, policy)
        except ConflictError:
            continue
        return
    raise ConflictError(f"the champion log changed {_ATTEMPTS} times under round {inputs.round}", hint="run it again")


def _append(store: Store, head: int, inputs: GateInputs, before: Policy, after: Policy) -> None:
    changed = differences(before, after)
    more = f" (and {len(changed) - _MOST_DIFFERENCES} more)" if len(changed) > _MOST_DIFFERENCES else ""
    append(
        store,
        expected_head=head,
        kind="policy_change",
        actor="pipeline",
        round=inputs.round,
        reason=f"the policy is another than at the last decision: {'; '.join(changed[:_MOST_DIFFERENCES])}{more}",
        details={
            "first_run": inputs.first_run,
            "before": before.digest,
            "after": after.digest,
            "differences": changed,
            "policy": after.model_dump(mode="json"),
        },
    )


def _recorded(log: ChampionLog, first_run: bool) -> Policy | None:
    """The policy of the last recorded change of this kind."""
    for record in reversed(log.records):
        if record.kind == "policy_change" and record.details.get("first_run") is first_run:
            try:
                return Policy.model_validate(record.details.get("policy"))
            except ValidationError as error:
                raise CorruptError(f"champion log: record {record.number} holds no policy") from error
    return None


def _decided(
    store: Store, inputs: GateInputs, read: Callable[[Store, str], GateRecord], key: Callable[[int], str]
) -> Policy | None:
    """The policy of the last decision of this kind before the round."""
    for number in range(inputs.round - 1, 0, -1):
        if store.exists(key(number)):
            record = read(store, key(number))
            if record.inputs.first_run == inputs.first_run:
                return record.policy
    return None
