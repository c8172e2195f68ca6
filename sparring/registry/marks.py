"""What of a line's store is still named: the marking half of `gc`.

A name is a digest of 64 hexadecimal digits that stands in a JSON object somebody may still read. Formats are not parsed
further, so that a field added by a later release protects what it names.

| named by | checkpoints | datasets |
|---|---|---|
| champion log: champions (all, or the last N), reference, candidates that a person may still promote | yes | yes |
| open rounds, and the last rounds | yes (a warm start only while its round is open) | yes |
| earlier rounds that promoted: `sparring verify` and model cards read them | no: the log names them | yes |
| `base.json` and whatever lies in no known folder | yes | yes |
| the last record of what each service serves: it may still read an earlier champion | yes | no |
| a named dataset's card | no | yes |
| a kept champion's record of adapters: its base, and the attacker of the next round or of a league | yes | no |
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from sparring.errors import CorruptError, NotFoundError, UsageError
from sparring.registry.adapters import read_adapters
from sparring.registry.champion import CHANGES, ChampionLog, Record, read_log
from sparring.store.base import Store

_DIGEST = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_ROUND = re.compile(r"rounds/(\d{6,})/(.+)")
_ADAPTERS = "selfplay/adapters.json"
_CROWNS = ("promotion", "override")
_KNOWN = (
    *("rounds/", "datasets/", "checkpoints/", "prepare/", "ledger/", "champion/", "pool/", "gate/looks/", "checks/"),
    *("hooks/", "serving/"),
)
"""Folders whose objects name nothing by themselves, or are looked at one by one. `prepare/` only remembers."""


@dataclass(frozen=True)
class Retention:
    """What is kept beside what must be. `keep_champions` None: all; `grace` in seconds of the store's clock."""

    keep_rounds: int = 10
    keep_champions: int | None = None
    grace: float = 7 * 86_400.0
    answers: bool = False

    def __post_init__(self) -> None:
        champions = 1 if self.keep_champions is None else self.keep_champions
        if self.keep_rounds < 0 or champions < 1 or not self.grace >= 0:
            raise UsageError(
                f"keep {self.keep_rounds} rounds, {self.keep_champions} champions, grace {self.grace} s: rounds and"
                " grace cannot be negative, and one champion at least is kept"
            )


@dataclass(frozen=True)
class Marked:
    """What must stay. `datasets` is None while an open round has not said yet which ones it uses: all stay."""

    checkpoints: frozenset[str]
    datasets: frozenset[str] | None
    rounds: frozenset[int]


def mark(store: Store, retention: Retention) -> Marked:
    """Reads the log, the rounds and what else names. Raises CorruptError when one of them cannot be read."""
    log, keys = read_log(store), _round_keys(store)
    ended = {number for number, names in keys.items() if "end.json" in names}
    recent = sorted(keys)[len(keys) - min(retention.keep_rounds, len(keys)) :]
    kept = (keys.keys() - ended) | set(recent)
    promoted = {record.round for record in log.records if record.kind in _CROWNS and record.round in keys}
    named = {number: _in_round(store, number, keys[number], number in ended) for number in kept | promoted}
    apart = _apart(store)
    recently = set().union(*(named[number] for number in kept))
    checkpoints = _of_log(log, retention.keep_champions) | _waiting(store, log) | apart | recently
    checkpoints |= _with_adapters(store, checkpoints, {number for number in promoted if _ADAPTERS in keys[number]})
    undecided = [number for number in keys if number not in ended and "prepare/result.json" not in keys[number]]
    datasets = None if undecided else _with_cards(store, _in_log(log) | apart | set().union(*named.values()))
    return Marked(frozenset(checkpoints), datasets, frozenset(kept | promoted))


def _of_log(log: ChampionLog, keep: int | None) -> set[str]:
    """Champions to keep, by the record that made each one champion last, and candidates of what is neither a hold nor
    a change of the champion: an approval whose promotion was cut off."""
    latest = [record.champion for record in reversed(log.records)]
    champions = [digest for digest in dict.fromkeys(latest) if digest]
    named = {r.candidate for r in log.records if r.kind != "hold" and r.kind not in CHANGES and r.candidate}
    fixed = {digest for digest in (log.champion, log.reference) if digest}
    return {*champions[:keep], *named, *fixed}


def _waiting(store: Store, log: ChampionLog) -> set[str]:
    """Candidates that were held since the champion changed last and only lack a person's yes."""
    changed = max((record.number for record in log.records if record.kind in CHANGES), default=0)
    held = [r for r in log.records if r.number > changed and (r.kind, r.decision) == ("hold", "INCONCLUSIVE")]
    return {record.candidate for record in held if record.candidate and _only_lacks_approval(store, record)}


def _only_lacks_approval(store: Store, record: Record) -> bool:
    """Whether no test stayed open; True where the decision cannot be read."""
    data = _get(store, str(record.details.get("decision_key") or "none"))
    try:
        endpoints = json.loads(data)["decision"]["endpoints"]
        return all(endpoint["status"] == "pass" for endpoint in endpoints)
    except (ValueError, LookupError, TypeError):
        return True


def _in_log(log: ChampionLog) -> set[str]:
    details = json.dumps([record.details for record in log.records], ensure_ascii=False)
    return _digests(details.encode())


def _round_keys(store: Store) -> dict[int, set[str]]:
    """Names of the objects of each round, below its folder."""
    found: dict[int, set[str]] = {}
    for key in store.list("rounds/"):
        if match := _ROUND.fullmatch(key):
            found.setdefault(int(match[1]), set()).add(match[2])
    return found


def _in_round(store: Store, number: int, names: Iterable[str], ended: bool) -> set[str]:
    """Digests that a round's JSON names; its warm start's only while it may have to be taken up."""
    found: set[str] = set()
    for name in sorted(name for name in names if name.endswith(".json")):
        if ended and name == "selfplay/warm.json":
            continue
        data = _get(store, f"rounds/{number:06d}/{name}")
        if ended and name == "selfplay/result.json":
            data = _without_warm(store, number, data)
        found |= _digests(data)
    return found


def _without_warm(store: Store, number: int, data: bytes) -> bytes:
    try:
        result = json.loads(data)
        return json.dumps({name: value for name, value in result.items() if name != "warm"}).encode()
    except (ValueError, AttributeError) as error:
        raise CorruptError(f"the selfplay result of round {number} in {store.url} is not a JSON object") from error


def _with_adapters(store: Store, checkpoints: set[str], numbers: Iterable[int]) -> set[str]:
    """What these rounds' records of adapters name beside a candidate that stays."""
    records = [read_adapters(store, number) for number in numbers]
    return set().union(*(record.digests for record in records if record.candidate in checkpoints))


def _apart(store: Store) -> set[str]:
    """Digests in JSON outside the known folders: `base.json`, run files, and what later releases may add."""
    keys = [key for key in store.list() if key.endswith(".json") and not key.startswith(_KNOWN)]
    served = {key.rpartition("/")[0]: key for key in store.list("serving/")}  # in order: the last of each service
    return set().union(*(_digests(_get(store, key)) for key in (*keys, *served.values())))


def _with_cards(store: Store, roots: set[str]) -> frozenset[str]:
    """The datasets among `roots`, and those that their cards name."""
    cards = {key.split("/")[1] for key in store.list("datasets/") if key.endswith("/card.json")}
    found: set[str] = set(roots)
    ahead = sorted(roots & cards)
    while ahead:
        more = (_digests(_get(store, f"datasets/{ahead.pop()}/card.json")) & cards) - found
        found |= more
        ahead += sorted(more)
    return frozenset(found)


def _get(store: Store, key: str) -> bytes:
    try:
        return store.get(key)
    except NotFoundError:  # written anew or swept by another gc since it was listed
        return b""


def _digests(data: bytes) -> set[str]:
    return {match.decode() for match in _DIGEST.findall(data)}
