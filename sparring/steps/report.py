"""Step `report`: the round's HTML page and its numbers, whatever became of the round.

    store ─► what is there, as far as the round got ─► numbers ─► page

It runs in the pipeline's exit handler. A missing or broken object becomes a line on the page; only a store that cannot
be written to is an error.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

import pyarrow as pa

import sparring
from sparring.config.run import ReportConfig, RunConfig
from sparring.evaluate.crossplay import CrossPlay, read_crossplay
from sparring.evaluate.degeneration import Texts, texts_of
from sparring.evaluate.tables import read_verdicts
from sparring.monitor import ledger
from sparring.progress import Progress
from sparring.registry import rounds
from sparring.registry.champion import read_log
from sparring.report import attacked
from sparring.report.facts import ROLES, Facts, Role
from sparring.report.learning import Curves, parse_curves
from sparring.report.measures import Measure, measures
from sparring.report.metrics import RoundMetrics, derive
from sparring.report.page import render
from sparring.report.pool import PoolStats, pool_stats
from sparring.report.reader import Reader
from sparring.steps import results
from sparring.steps.gate import GateRecord, decision_key, read_record
from sparring.store.base import Store
from sparring.store.datasets import load_table
from sparring.store.local import LocalStore

PAST_ROUNDS = 100
"""Earlier rounds in the history chart, at most."""

_ANSWER_COLUMNS = ("suite", "prompt_id", "answer_index", "prompt", "answer")
_LOOK_COLUMNS = ("kind", "slice", "answer", "tokens")
_GAME_COLUMNS = (
    *("step", "game", "kind", "seed_id", "label", "attack_id", "attack", "answer", "refused", "harmful", "degenerate"),
    *("attacker_reward", "defender_void", "reason"),
)
_PACKAGES = ("torch", "transformers", "trl", "numpy", "pyarrow", "onnxruntime", "kfp")


@dataclass(frozen=True)
class ReportInputs:
    """Which round; None: the one last begun."""

    round: int | None


@dataclass(frozen=True)
class _Results:
    """The results of the round's steps, as far as there are any."""

    prepare: results.PrepareResult | None
    selfplay: results.SelfplayResult | None
    update_pool: results.UpdatePoolResult | None
    answer: results.AnswerResult | None
    judge: results.JudgeResult | None
    gate: GateRecord | None


def run(config: ReportConfig, store: Store, inputs: ReportInputs, progress: Progress) -> results.ReportResult:
    """Writes `rounds/<n>/report/index.html` and `metrics.json`; a line without a round gets a page for round 0.

    Run again it writes both anew. Raises StoreError when they cannot be written, or the rounds cannot be listed.
    """
    number = rounds.last_round(store) if inputs.round is None else inputs.round
    progress.update("read", 0, 2)
    facts, numbers = collect(store, number)
    progress.update("draw", 1, 2)
    html = render(facts, config, numbers)
    folder = f"rounds/{number:06d}/report"
    store.put(f"{folder}/metrics.json", numbers.model_dump_json(indent=1).encode())
    store.put(f"{folder}/index.html", html.encode("utf-8"))
    progress.update("draw", 2, 2)
    path = Path(store.url) / folder / "index.html" if isinstance(store, LocalStore) else None
    return results.ReportResult(html_key=f"{folder}/index.html", path=str(path) if path else None)


def collect(store: Store, number: int) -> tuple[Facts, RoundMetrics]:
    """All facts of a round and its numbers. Raises nothing because of what the store lacks or holds."""
    reader = Reader(store)
    claim = reader.json("the round's claim", f"rounds/{number:06d}/claim.json")
    digest = str(claim.get("config_digest") or "")
    config = reader.take("the run file", lambda: rounds.load_config(store, digest)) if digest else None
    done = _results(reader, number)
    verdicts = _verdicts(reader, done.judge)
    facts = Facts(
        round=number,
        line=config.line if config else "",
        claimed=str(claim.get("claimed_at") or "")[:16].replace("T", " "),
        config=config,
        first_run=_first_run(done),
        models=_models(done),
        decision=done.gate.decision if done.gate else None,
        policy=done.gate.policy if done.gate else None,
        measures=_measures(reader, verdicts),
        verdicts=verdicts,
        attacked=_attacked(reader, verdicts),
        texts=_texts(reader, done.answer, config) if config else {},
        answers=reader.parquet("the candidate's answers", _answers_key(done.answer), _ANSWER_COLUMNS),
        games=reader.parquet("the games", done.selfplay.games_key if done.selfplay else None, _GAME_COLUMNS),
        curves=_curves(reader, number, done.selfplay),
        pool=_pool(done.update_pool),
        crossplay=_crossplay(reader, number),
        log=reader.take("the champion log", lambda: read_log(store)),
        ledger=reader.take("the ledger", lambda: ledger.read(store, number)) or {},
        categories=_categories(reader, done.prepare),
        provenance=_provenance(config, digest, done),
        past=[_past(store, earlier) for earlier in range(max(1, number - PAST_ROUNDS), number)],
        problems=reader.problems,
    )
    return facts, _metrics(facts)


def _metrics(facts: Facts) -> RoundMetrics:
    return derive(
        number=facts.round,
        outcome=_outcome(facts),
        first_run=facts.first_run,
        measures={str(role): found for role, found in facts.measures.items()},
        curves=facts.curves,
        games=facts.games,
        pool=facts.pool,
        steps=facts.steps,
    )


def _outcome(facts: Facts) -> str:
    """What the champion log says of the round, else what the gate says; a PROMOTE that was not recorded is none."""
    if facts.record is not None:
        return facts.record.decision or ""
    outcome = facts.decision.outcome if facts.decision else ""
    return "" if outcome == "PROMOTE" else outcome


def _past(store: Store, number: int) -> RoundMetrics:
    """An earlier round's numbers: those of its page, or made again from its verdict tables."""
    reader = Reader(store)
    key = f"rounds/{number:06d}/report/metrics.json"
    known = reader.take("the numbers", lambda: RoundMetrics.model_validate_json(store.get(key)))
    if known is not None:
        return known
    done = _results(reader, number)
    log = reader.take("the champion log", lambda: read_log(store))
    decision = done.gate.decision if done.gate else None
    found = _measures(reader, _verdicts(reader, done.judge))
    first, pool = _first_run(done), _pool(done.update_pool)
    return _metrics(Facts(round=number, first_run=first, decision=decision, measures=found, log=log, pool=pool))


def _results(reader: Reader, number: int) -> _Results:
    def load(step: str, cls: type[rounds.T]) -> rounds.T | None:
        return reader.take(f"the result of {step}", lambda: rounds.load_result(reader.store, number, step, cls))

    return _Results(
        prepare=load("prepare", results.PrepareResult),
        selfplay=load("selfplay", results.SelfplayResult),
        update_pool=load("update_pool", results.UpdatePoolResult),
        answer=load("answer", results.AnswerResult),
        judge=load("judge", results.JudgeResult),
        gate=reader.take("the decision", lambda: read_record(reader.store, decision_key(number))),
    )


def _crossplay(reader: Reader, number: int) -> CrossPlay | None:
    """The matrix of this round, else of the latest one before it that has any."""
    for earlier in range(number, max(0, number - PAST_ROUNDS - 1), -1):
        found = reader.take("the cross-play", partial(read_crossplay, reader.store, earlier))
        if found is not None:
            return found
    return None


def _pool(found: results.UpdatePoolResult | None) -> PoolStats | None:
    if found is None:
        return None
    counts = (found.pool_attacks, found.pool_outcomes, found.attacks_added)
    return pool_stats(*counts, found.metrics, found.ages)


def _first_run(done: _Results) -> bool:
    if done.gate:
        return done.gate.decision.first_run
    return done.prepare is not None and done.prepare.champion is None


def _models(done: _Results) -> dict[Role, str]:
    """Digests by role, from the latest step that names them."""
    models: dict[Role, str] = {}
    if done.prepare:
        models["champion"] = done.prepare.champion or done.prepare.start
        if done.prepare.reference:
            models["reference"] = done.prepare.reference
    if done.selfplay:
        models["candidate"] = done.selfplay.candidate
    for step in (done.answer, done.judge):
        models.update(step.models if step else {})
    return {role: models[role] for role in ROLES if role in models}


def _verdicts(reader: Reader, judge: results.JudgeResult | None) -> dict[Role, pa.Table]:
    keys = judge.verdicts if judge else {}
    found = {role: _verdict(reader, role, keys[role]) for role in ROLES if role in keys}
    return {role: table for role, table in found.items() if table is not None}


def _verdict(reader: Reader, role: str, key: str) -> pa.Table | None:
    return reader.take(f"the {role}'s verdicts", lambda: read_verdicts(reader.store, key)[0])


def _measures(reader: Reader, verdicts: Mapping[Role, pa.Table]) -> dict[Role, list[Measure]]:
    return {role: measures(table) for role, table in verdicts.items()}


def _attacked(reader: Reader, verdicts: Mapping[Role, pa.Table]) -> dict[Role, list[attacked.Curve]]:
    """Attack success by tries; a model whose tries are not whole has none, which is noted."""
    found = {role: reader.take(f"the {role}'s tries", partial(attacked.curves, verdicts[role])) for role in verdicts}
    return {role: curves for role, curves in found.items() if curves}


def _texts(reader: Reader, answer: results.AnswerResult | None, config: RunConfig) -> dict[Role, dict[str, Texts]]:
    """Length and repetition of each model's answers, against the limits of tokens that they were asked with."""
    found: dict[Role, dict[str, Texts]] = {}
    most = config.evaluate.answer_tokens
    limits = {"harmful": most, "benign": most, "capability": config.evaluate.number_tokens}
    for role in ROLES:
        key = answer.answers.get(role) if answer else None
        table = reader.parquet(f"the {role}'s answers", key, _LOOK_COLUMNS)
        texts = reader.take(f"the {role}'s answers", partial(texts_of, table, limits)) if table is not None else None
        found |= {role: texts} if texts else {}
    return found


def _answers_key(answer: results.AnswerResult | None) -> str | None:
    return answer.answers.get("candidate") if answer else None


def _curves(reader: Reader, number: int, selfplay: results.SelfplayResult | None) -> Curves | None:
    """The training curves; also of a training that did not end, whose curves lie where it puts them."""
    key = selfplay.curves_key if selfplay else f"rounds/{number:06d}/selfplay/curves.jsonl"
    return reader.take("the training curves", lambda: parse_curves(reader.store.get(key)))


def _categories(reader: Reader, prepare: results.PrepareResult | None) -> dict[str, str]:
    """Categories of seeds and of suite prompts by id."""
    if prepare is None:
        return {}
    seeds = _column(reader, "the seeds", prepare.seeds, "id")
    return {**seeds, **_column(reader, "the suites", prepare.suites, "prompt_id")}


def _column(reader: Reader, what: str, digest: str, name: str) -> dict[str, str]:
    table = reader.take(what, lambda: load_table(reader.store, digest).select([name, "category"]))
    return dict(zip(table[name].to_pylist(), table["category"].to_pylist(), strict=True)) if table is not None else {}


def _provenance(config: RunConfig | None, digest: str, done: _Results) -> dict[str, str]:
    """What the round rests on, by name; only what is known."""
    found: dict[str, object] = {"run file": digest}
    if config:
        source = config.candidate or config.model.source
        found |= {"model": Path(source).name if "/" in source else source, "recipe": config.recipe, "seed": config.seed}
    if done.prepare:
        found |= {"base model": done.prepare.base, "started from": done.prepare.start, "seeds": done.prepare.seeds}
        found |= {"suites": done.prepare.suites, "replayed attacks": done.prepare.replay}
        found |= {"data": ", ".join(f"{name} {value:,}" for name, value in sorted(done.prepare.counts.items()))}
    if done.selfplay:
        found |= {"trained tokens": f"{done.selfplay.trained_tokens:,}", "games": f"{done.selfplay.games:,}"}
        found |= {"self-play stopped": done.selfplay.stopped or done.selfplay.guard}
    found |= {str(role): model for role, model in _models(done).items()}
    if done.answer:
        found |= {"decoding": _decoding(config, done.answer.decoding)}
    if done.judge:
        found |= {"judge": done.judge.judge, "verdicts": f"{done.judge.rows:,}, {done.judge.void:,} of them void"}
    return {name: str(value) for name, value in {**found, **_gate(done.gate), **_versions()}.items() if value != ""}


def _decoding(config: RunConfig | None, name: str) -> str:
    if config is None:
        return name
    how = config.evaluate
    return f"temperature {how.temperature:g}, answers of {how.answer_tokens} tokens at most, the same for all; {name}"


def _gate(record: GateRecord | None) -> dict[str, str]:
    if record is None:
        return {}
    decision = record.decision
    return {
        "gate policy": f"{decision.policy}, {decision.policy_digest}",
        "α": f"{decision.alpha:.3g} at this look, {decision.alpha_spent:.3g} spent before",
        "decided": f"{record.decided_at:%Y-%m-%d %H:%M} UTC, by sparring {record.code_version}",
    }


def _versions() -> dict[str, str]:
    found = [f"sparring {sparring.__version__}", f"Python {platform.python_version()}"]
    for name in _PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:  # a control image has no torch
            continue
    return {"versions of this page's maker": ", ".join(found)}
