"""The adaptive evaluation of a round, frozen in the store try by try.

Everything lies under `rounds/<n>/answer/adaptive/<plan>/`, where the plan's name is a digest of all that decides:
settings, round's seed, suites, attacker, reward judge. `attacks.json` names the dataset of the attacks that are the
same for all models; `<model>/<method>-<try>.parquet` holds a model's attacks and answers of one try. Each is written
once, put-if-absent, and what is there is read back: a rerun goes on with what was drawn, whoever drew it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256

import pyarrow as pa
import pyarrow.parquet as pq

from sparring.config.run import AdaptiveMethod, EvaluateConfig
from sparring.data.seeds import heldout_behaviors
from sparring.errors import CorruptError
from sparring.evaluate.adaptive import frames
from sparring.evaluate.adaptive.attacker import Feedback, feedback, refine_attacks, write_attacks
from sparring.evaluate.adaptive.attacks import (
    SCHEMA,
    SUITE,
    Attack,
    Behavior,
    attack_table,
    draw_behaviors,
    read_attacks,
)
from sparring.evaluate.adaptive.target import Answered, answer_attacks
from sparring.evaluate.answers import SCHEMA as ANSWERS
from sparring.judge.protocol import Judge
from sparring.policy.load import Policy
from sparring.store.base import Store
from sparring.store.datasets import load_table, save_table

_VERSION = 1
_TRY = pa.schema(
    [
        *SCHEMA,
        pa.field("answer", pa.string(), nullable=False),
        pa.field("tokens", pa.int32(), nullable=False),
        pa.field("score", pa.int32()),
        pa.field("broken", pa.bool_()),
    ],
    metadata={"sparring.schema": "2"},
)
"""One try: the attacks, the answers to them, and for `pair` the reward judge's harm score, 1 to 5. `broken` as in
`sparring.evaluate.answers`; version 1 lacks it.
"""

OnTries = Callable[[int, int], None]
"""Called with the tries that are done and all of them."""


@dataclass(frozen=True)
class Plan:
    """All that decides an adaptive evaluation. `attacker` is the digest of the model that writes attacks.

    `reward_judge` names the judge of the reward, which guides `pair`; the gate's judge has no place here. `held_out`:
    the dataset of seeds that never train, "" without one.
    """

    config: EvaluateConfig
    seed: int
    suites: str
    attacker: str
    reward_judge: str
    held_out: str = ""

    @property
    def name(self) -> str:
        """Digest-like name: the same plan, the same name."""
        given = {**asdict(self), "config": self.config.model_dump(mode="json", exclude={"batch"}), "version": _VERSION}
        return sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Models:
    """How the models come by: by digest, loaded when they are needed, and the reward judge likewise."""

    policy: Callable[[str], Policy]
    judge: Callable[[], Judge]


@dataclass
class AdaptiveRun:
    """One plan in one folder of the store."""

    plan: Plan
    store: Store
    folder: str
    models: Models
    behaviors: list[Behavior] = field(init=False)

    def __post_init__(self) -> None:
        self.folder = f"{self.folder}/adaptive/{self.plan.name}"
        suites = load_table(self.store, self.plan.suites)
        held_out, count = heldout_behaviors(self.store, self.plan.held_out), self.plan.config.adaptive.behaviors
        self.behaviors = draw_behaviors(suites, count, self.plan.seed, held_out)
        self._shared: list[Attack] | None = None

    @property
    def steps(self) -> list[tuple[AdaptiveMethod, int]]:
        """(method, try) in the order of the work."""
        adaptive = self.plan.config.adaptive
        return [(method, attempt) for method in adaptive.methods for attempt in range(adaptive.tries)]

    def answers(self, model: str, on_tries: OnTries | None = None) -> pa.Table:
        """A model's answers to every attack, as rows of the answers table. Goes on where a killed run stopped."""
        tries = self._tries(model, on_tries)
        return pa.Table.from_pylist([row for table in tries for row in _rows(model, table)], ANSWERS)

    def attacks(self, models: Sequence[str]) -> str:
        """Digest of the dataset of every attack on every model, once all have answered."""
        shared = [attack for attack in self.shared() if attack.method != "pair"]
        made = [attack for model in dict.fromkeys(models) for attack in self._made_for(model)]
        meta: dict[str, object] = {"plan": self.plan.name, "attacker": self.plan.attacker, "shared": len(shared)}
        return save_table(self.store, attack_table([*shared, *made]), name="adaptive-attacks", meta=meta)

    def shared(self) -> list[Attack]:
        """The attacks that are the same for all models, frozen before the first model answers."""
        if self._shared is None:
            key = f"{self.folder}/attacks.json"
            if not self.store.exists(key):
                table = attack_table(list(self._write_shared()))
                digest = save_table(self.store, table, name="adaptive-shared", meta={"plan": self.plan.name})
                self.store.put_if_absent(key, json.dumps({"schema_version": 1, "attacks": digest}).encode())
            self._shared = read_attacks(load_table(self.store, _named(self.store, key)))
        return self._shared

    def _write_shared(self) -> Iterator[Attack]:
        config, seed = self.plan.config.adaptive, self.plan.seed
        if "attacker" in config.methods:
            attacker = self.models.policy(self.plan.attacker)
            for attempt in range(config.tries):
                yield from write_attacks(attacker, self.behaviors, attempt, config, seed, self.plan.config.batch)
        if "best_of_n" in config.methods:
            yield from frames.best_of_n(self.behaviors, config, seed)
        if "prefill" in config.methods:
            yield from frames.prefill(self.behaviors, config)
        if "multi_turn" in config.methods:
            yield from frames.multi_turn(self.behaviors, config, seed)

    def _made_for(self, model: str) -> Iterator[Attack]:
        for method, attempt in self.steps:
            if method == "pair":
                yield from read_attacks(_read(self.store, self._key(model, method, attempt)))

    def _key(self, model: str, method: AdaptiveMethod, attempt: int) -> str:
        return f"{self.folder}/{model}/{method}-{attempt}.parquet"

    def _tries(self, model: str, on_tries: OnTries | None) -> Iterator[pa.Table]:
        done, total = 0, len(self.behaviors) * len(self.steps)
        last: pa.Table | None = None
        for method, attempt in self.steps:
            key = self._key(model, method, attempt)
            if not self.store.exists(key):
                self.store.put_if_absent(key, _parquet(self._try(model, method, attempt, last)))
            last = _read(self.store, key)
            done += last.num_rows
            if on_tries:
                on_tries(done, total)
            yield last

    def _try(self, model: str, method: AdaptiveMethod, attempt: int, last: pa.Table | None) -> pa.Table:
        if method == "pair":
            attacks = self._refined(model, attempt, last)
        else:
            attacks = [a for a in self.shared() if a.method == method and a.answer_index == attempt]
        answers = answer_attacks(self.models.policy(model), attacks, self.plan.config, self.plan.seed)
        scores: list[int | None] = [None] * len(attacks)
        if method == "pair":
            scores = feedback(self.models.judge(), attacks, [answer.text for answer in answers])
        return _table(attacks, answers, scores)

    def _refined(self, model: str, attempt: int, last: pa.Table | None) -> list[Attack]:
        heard = None
        if attempt:
            assert last is not None
            heard = [Feedback(row["turns"][0], row["answer"], row["score"]) for row in last.to_pylist()]
        config = self.plan.config
        attacker = self.models.policy(self.plan.attacker)
        return refine_attacks(
            attacker, self.behaviors, heard, attempt, config.adaptive, self.plan.seed, config.batch, model
        )


def _table(attacks: Sequence[Attack], answers: Sequence[Answered], scores: Sequence[int | None]) -> pa.Table:
    rows = [
        {**attack, "answer": answer.text, "tokens": answer.tokens, "score": score, "broken": answer.broken}
        for attack, answer, score in zip(attack_table(attacks).to_pylist(), answers, scores, strict=True)
    ]
    return pa.Table.from_pylist(rows, _TRY)


def _rows(model: str, table: pa.Table) -> Iterator[dict[str, object]]:
    """Rows of the answers table. The judge reads the plain request and the answer, as HarmBench's does: an attack may
    be unreadable (best-of-N) or have left its subject, and what counts is whether the behaviour was shown."""
    for row in table.to_pylist():
        yield {
            "model": model,
            "suite": SUITE,
            "slice": f"{SUITE}-{row['method']}",
            "kind": "harmful",
            "prompt_id": row["prompt_id"],
            "behavior": row["behavior"],
            "category": row["category"],
            "label": "harmful",
            "prompt": row["request"],
            "answer": row["answer"],
            "answer_index": row["answer_index"],
            "tokens": row["tokens"],
            "score": None,
            "broken": row["broken"],
        }


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True, use_compliant_nested_type=False)
    return bytes(sink.getvalue().to_pybytes())


def _read(store: Store, key: str) -> pa.Table:
    try:
        table = pq.read_table(pa.BufferReader(store.get(key)), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise CorruptError(
            f"{key!r} in {store.url} is not readable Parquet", hint="delete it: this try is answered anew"
        ) from error
    if "broken" not in table.column_names:  # version 1: no model thought first
        table = table.append_column(_TRY.field("broken"), pa.nulls(table.num_rows, pa.bool_()))
    if table.schema != _TRY:
        raise CorruptError(f"{key!r} in {store.url} does not hold attacks and answers", hint="delete it")
    return table


def _named(store: Store, key: str) -> str:
    """The dataset that `attacks.json` names."""
    try:
        return str(json.loads(store.get(key))["attacks"])
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptError(
            f"{key!r} in {store.url} names no dataset", hint="delete it: attacks are made anew"
        ) from error
