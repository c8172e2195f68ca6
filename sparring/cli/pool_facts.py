"""What `sparring pool` prints, read from the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np

from sparring.cli.common import user_name
from sparring.config.run import RunConfig
from sparring.errors import NotFoundError, UsageError
from sparring.game.records import Label
from sparring.importers.attacks import IMPORTERS
from sparring.registry import rounds
from sparring.registry.champion import read_log
from sparring.replay.contents import Contents
from sparring.replay.eviction import quarantined
from sparring.replay.pool import Pool
from sparring.replay.samplers.learnability import mastered
from sparring.replay.state import PoolState, Rows
from sparring.replay.tables import again
from sparring.steps.import_attacks import Origin, import_attacks
from sparring.steps.work import work_folder
from sparring.store.base import Store

Facts = dict[str, object]
_SHORT = 12
_LONG = 100
_MOST = 4000
_TEXTS = ("text", "seed")


def pool_facts(config: RunConfig, store: Store) -> Facts:
    """The pool in numbers."""
    pool, accepted = Pool(store), read_log(store).accepted
    state = pool.state(accepted, config.replay.discount)
    sources, seeds = again(lambda: _by_source(pool.contents, state))
    gone, files = pool.gone(), pool.contents.sizes()
    return {
        "line": config.line,
        "store": config.store,
        "attacks": len(state),
        "harmful": int(state.harmful.sum()),
        "benign": int((~state.harmful).sum()),
        "limit": config.replay.max_attacks,
        "clusters": len(np.unique(state.cluster)),
        "never_met_by_a_champion": int((state.visits == 0).sum()),
        "mastered": int(mastered(state, config.replay.mastered_below).sum()),
        "resting_as_void": int(quarantined(state, pool.contents.voids(accepted), config.replay.max_voids).sum()),
        "outcomes": files["outcomes"].rows,
        "visits_of_champions": int(state.visits.sum()),
        "newest_round": int(state.origin_round.max(initial=0)),
        "by_source": dict(sources.most_common()),
        "by_seed_source": dict(seeds.most_common()),
        "forgotten_or_evicted": len(gone.ids),
        "files": {name: size.files for name, size in files.items()},
        "bytes": {name: size.bytes for name, size in files.items()},
    }


def _by_source(contents: Contents, state: PoolState) -> tuple[Counter[str], Counter[str]]:
    """Attacks by who added them and by where their seeds are from."""
    found: dict[str, tuple[str, str]] = {}
    for table in contents.attack_tables(("attack_id", "source", "seed_source")):
        found.update((row[0], row[1:]) for row in zip(*(column.to_pylist() for column in table.columns), strict=True))
    names = state.names(np.arange(len(state)))  # one may have been forgotten and purged since the state was read
    kept = [found[name] for name in names if name in found]
    return Counter(source for source, _ in kept), Counter(seeds for _, seeds in kept)


def top_attacks(
    config: RunConfig, store: Store, number: int, by: str, label: str | None, show_text: bool
) -> list[Facts]:
    """The first `number` attacks in an order, of one label if asked for."""
    pool = Pool(store)
    state = pool.state(read_log(store).accepted, config.replay.discount)
    rows = _ordered(state, by)
    if label:
        rows = rows[state.harmful[rows] == (label == "harmful")]
    rows = rows[:number]
    texts = pool.attacks(state.names(rows), ["attack_id", "text", "source"]).to_pylist()
    return [
        {**_redacted(text, show_text), **_counts(state, row)} for text, row in zip(texts, rows.tolist(), strict=True)
    ]


def _ordered(state: PoolState, by: str) -> Rows:
    """Rows, the most first; among equals more failures, then the newer attack, then the id."""
    rate = np.divide(state.failures, state.answers, out=np.zeros(len(state)), where=state.answers > 0)
    keys = {"failures": state.failures, "rate": rate, "visits": state.visits, "recent": state.origin_round}
    return np.lexsort((-state.origin_round, -state.failures, -keys[by]))


def _counts(state: PoolState, row: int) -> Facts:
    last = int(state.last_round[row])
    return {
        "label": "harmful" if state.harmful[row] else "benign",
        "round": int(state.origin_round[row]),
        "visits": int(state.visits[row]),
        "failures": int(state.failures[row]),
        "answers": int(state.answers[row]),
        "last_round": last if last >= 0 else None,
        "in_its_cluster": int((state.cluster == state.cluster[row]).sum()),
    }


def _redacted(row: Mapping[str, object], show_text: bool) -> Facts:
    """The row, its texts hidden behind their length unless they were asked for."""
    return {
        name: f"({len(str(value)):,} characters)" if name in _TEXTS and not show_text else value
        for name, value in row.items()
    }


def attack_facts(config: RunConfig, store: Store, name: str, show_text: bool) -> tuple[Facts, list[Facts]]:
    """One attack, by its id or the beginning of it, and its outcomes. Raises NotFoundError and UsageError."""
    pool, accepted = Pool(store), read_log(store).accepted
    state = pool.state(accepted, config.replay.discount)
    row = _one(state, name)
    full = state.names(np.array([row]))
    columns = (
        "attack_id",
        "label",
        "category",
        "behavior",
        "seed_source",
        "source",
        "attacker",
        "origin_round",
        "cluster",
    )
    (found,) = pool.attacks(full, [*columns, "seed", "text"]).to_pylist()
    found["cluster"] = found["cluster"] or found["attack_id"]
    shown = {
        key: value if value is None else one_line(str(value), _MOST)
        for key, value in _redacted(found, show_text).items()
    }
    outcomes = pool.contents.outcomes_of(full[0]).to_pylist()
    names = ("round", "step", "defender", "unsafe", "refused", "answers", "void")
    return {**shown, **_counts(state, row)}, [
        {**{key: each[key] for key in names}, "counts": each["defender"] in accepted} for each in outcomes
    ]


def one_line(text: str, limit: int) -> str:
    """Foreign text for a terminal: no control or direction characters, one line, at most `limit` characters."""
    flat = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def _one(state: PoolState, name: str) -> int:
    """The row of the attack whose id begins with `name`."""
    wanted = name.strip().lower().encode("ascii", "replace")
    low, high = np.searchsorted(state.ids, [wanted, wanted + b"~"])
    if high - low > 1 and len(wanted) >= 4:
        some = ", ".join(state.names(np.arange(low, min(high, low + 3))))
        raise UsageError(f"{high - low} attacks begin with {name}: {some}", hint="give more digits")
    if high - low != 1:
        raise NotFoundError(f"no attack {name!r} is in the pool", hint="`sparring pool top` lists some")
    return int(low)


def imported_facts(config: RunConfig, store: Store, file: Path, tool: str, label: str, source: str | None) -> Facts:
    """Imports a file; what became of its attacks and what was left out of it."""
    found = IMPORTERS[tool](file)
    origin = Origin(tool, cast(Label, label), source or f"{tool}:{file.name}")
    done = import_attacks(config, store, found.attacks, origin, work_folder(config.store, config.line))
    return {"source": origin.seed_source, **asdict(done), "left_out": dict(found.left_out)}


def forget_attacks(store: Store, source: str | None, names: Sequence[str], agreed: Callable[[str], bool]) -> None:
    """Forgets after a question. Raises NotFoundError for what is not there."""
    pool = Pool(store)
    if source is None:
        state = pool.state(frozenset())
        ids = state.names(np.array(sorted({_one(state, name) for name in names}), dtype=np.intp))
        question = f"forget {len(ids)} attacks for good?"
    else:
        ids = []
        question = f"forget all attacks from {one_line(source, 80)!r} for good?"
    if not agreed(question):
        print("nothing was forgotten")
        return
    number = pool.forget(attack_ids=ids, seed_source=source, round=rounds.last_round(store), actor=user_name())
    print(f"{number} attacks forgotten; `sparring pool compact` purges their texts")


def print_attacks(rows: Sequence[Mapping[str, object]]) -> None:
    """A table of attacks."""
    names = ("label", "round", "visits", "failed", "last_round", "in_its_cluster", "text")
    cells = []
    for row in rows:
        texts = {"failed": f"{row['failures']} of {row['answers']}", "text": one_line(str(row["text"]), _LONG)}
        cells.append((str(row["attack_id"])[:_SHORT], *({**row, **texts}[name] for name in names)))
    _table(("attack", *names), cells)


def print_outcomes(rows: Sequence[Mapping[str, object]]) -> None:
    """A table of outcomes."""
    names = ("round", "step", "defender", "unsafe", "refused", "answers", "void", "counts")
    cells = []
    for row in rows:
        texts = {"defender": str(row["defender"])[:_SHORT], "counts": "yes" if row["counts"] else "no"}
        cells.append([{**row, **texts}[name] for name in names])
    _table(names, cells)


def print_compaction(report: Mapping[str, Any]) -> None:
    """A table of files and bytes before and after."""
    tables = {name: value for name, value in report.items() if isinstance(value, dict)}
    names = ("files_before", "files_after", "bytes_before", "bytes_after", "rows_dropped")
    cells = ((name, *(f"{table[key]:,}" for key in names)) for name, table in tables.items())
    _table(("table", *names), cells)
    print(f"{report['deleted']} files deleted, snapshot {report['snapshot']}")


def _table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(Text("-" if cell is None else str(cell)) for cell in row))  # texts are no markup
    Console().print(table)
