"""Step `answer`: candidate, champion and reference answer the same suites with the same decoding.

In the first round the base model stands in the champion's place. Sampling seeds come from the round's number, so that
re-evaluating a champion is a new measurement. With `evaluate.adaptive.methods` the models are attacked as well
(`sparring.evaluate.adaptive`): the attacks are frozen to a dataset, the answers are further rows of the same tables.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from sparring.config.run import EvaluateConfig, JudgeConfig
from sparring.progress import Progress
from sparring.registry.checkpoints import forget_folders, load_checkpoint
from sparring.steps.results import AnswerResult, PrepareResult, Role, SelfplayResult
from sparring.steps.work import CHECKPOINTS
from sparring.store.base import Store
from sparring.store.datasets import load_table

if TYPE_CHECKING:
    from sparring.evaluate.adaptive.run import AdaptiveRun
    from sparring.policy.load import Policy

_MODEL_KEY, _CHAT_KEY = b"sparring.answered", b"sparring.chat"


@dataclass(frozen=True)
class AnswerInputs:
    """The round, its candidate, the run's seed, torch threads and a local folder for checkpoints.

    The reward judge of `judge` guides the search of adaptive attacks; the gate's judge must not.
    """

    prepared: PrepareResult
    trained: SelfplayResult
    seed: int
    threads: int
    work: Path
    judge: JudgeConfig = field(default_factory=JudgeConfig)

    @property
    def models(self) -> dict[Role, str]:
        """Digests by role; the reference is there once a champion was promoted."""
        models: dict[Role, str] = {
            "candidate": self.trained.candidate,
            "champion": self.prepared.champion or self.prepared.base,
        }
        if self.prepared.reference:
            models["reference"] = self.prepared.reference
        return models

    @property
    def round_seed(self) -> int:
        """Sampling seed of this round, the same for every model."""
        return self.seed * 7_919 + self.prepared.round


def run(config: EvaluateConfig, store: Store, inputs: AnswerInputs, progress: Progress) -> AnswerResult:
    """Answers the suites with every model. A killed run keeps the models it had finished, and every adaptive try.

    Nobody is asked about a candidate whose training a guard stopped.
    """
    folder = f"rounds/{inputs.prepared.round:06d}/answer"
    decoding = _decoding(config, inputs.round_seed)
    if inputs.trained.guard:  # the gate holds this candidate unseen: answers would be for nothing
        return AnswerResult(models=inputs.models, answers={}, suites=inputs.prepared.suites, decoding=decoding)
    policies = _Policies(store, inputs, keep_attacker="pair" in config.adaptive.methods)
    attacks = _adaptive(config, store, inputs, folder, policies) if config.adaptive.methods else None
    work = _Work(config, store, inputs, load_table(store, inputs.prepared.suites), progress, policies, attacks)
    keys: dict[Role, str] = {}
    templates: dict[Role, str] = {}
    for role, digest in inputs.models.items():
        keys[role] = f"{folder}/{digest[:16]}.parquet"  # by model: roles that share a model share its answers
        mark = f"{digest}/{inputs.prepared.suites}/{decoding}" + (f"/{attacks.plan.name}" if attacks else "")
        if not _answered(store, keys[role], mark):
            table, chat = work.answer(role, digest), policies.get(digest).chat.digest
            meta = {**(table.schema.metadata or {}), _MODEL_KEY: mark.encode(), _CHAT_KEY: chat.encode()}
            store.put(keys[role], _parquet(table.replace_schema_metadata(meta)))
        templates[role] = _metadata(store, keys[role]).get(_CHAT_KEY, b"").decode()
    forget_folders(inputs.work / CHECKPOINTS, inputs.models.values())  # the next round begins with one of these
    return AnswerResult(
        models=inputs.models,
        answers=keys,
        suites=inputs.prepared.suites,
        decoding=decoding,
        templates=templates,
        attacks=attacks.attacks(list(inputs.models.values())) if attacks else "",
        tries=len(attacks.behaviors) * len(attacks.steps) if attacks else 0,
    )


def _decoding(config: EvaluateConfig, seed: int) -> str:
    """Digest-like name of how the suites are answered: settings, seed and chat encoding."""
    settings = config.model_dump(exclude={"batch", "adaptive"})  # what the attacks are is in their plan's name
    text = json.dumps({**settings, "seed": seed, "chat": "template/v1"}, sort_keys=True)
    return sha256(text.encode()).hexdigest()[:16]


def _adaptive(
    config: EvaluateConfig, store: Store, inputs: AnswerInputs, folder: str, policies: _Policies
) -> AdaptiveRun:
    from sparring.evaluate.adaptive.run import AdaptiveRun, Models, Plan
    from sparring.judge import load_reward_judge

    plan = Plan(
        config=config,
        seed=inputs.round_seed,
        suites=inputs.prepared.suites,
        attacker=inputs.trained.candidate,
        reward_judge=inputs.judge.reward,
        held_out=inputs.prepared.held_out,
    )
    return AdaptiveRun(plan, store, folder, Models(policies.get, partial(load_reward_judge, inputs.judge, store)))


def _answered(store: Store, key: str, mark: str) -> bool:
    return store.exists(key) and _metadata(store, key).get(_MODEL_KEY) == mark.encode()


def _metadata(store: Store, key: str) -> dict[bytes, bytes]:
    return dict(pq.read_schema(pa.BufferReader(store.get(key))).metadata or {})


@dataclass
class _Policies:
    """Models by digest, loaded when first asked for. One is kept; beside it the candidate where it refines attacks."""

    store: Store
    inputs: AnswerInputs
    keep_attacker: bool
    _kept: dict[str, Policy] = field(default_factory=dict)

    def get(self, digest: str) -> Policy:
        from sparring.policy.load import load_policy, set_threads

        if digest not in self._kept:
            set_threads(self.inputs.threads)
            stays = self.inputs.trained.candidate if self.keep_attacker else ""
            self._kept = {key: kept for key, kept in self._kept.items() if key == stays}
            self._kept[digest] = load_policy(load_checkpoint(self.store, digest, self.inputs.work / CHECKPOINTS))
        return self._kept[digest]


@dataclass(frozen=True)
class _Work:
    """What it takes to let one model after the other answer."""

    config: EvaluateConfig
    store: Store
    inputs: AnswerInputs
    suites: pa.Table
    progress: Progress
    policies: _Policies
    attacks: AdaptiveRun | None

    def answer(self, role: Role, digest: str) -> pa.Table:
        """A model's answers to the suites and, where there are any, to the attacks."""
        if self.attacks is None:
            return self._suites(role, digest)
        key = f"{self.attacks.folder}/{digest}/suites.parquet"
        if not self.store.exists(key):
            self.store.put_if_absent(key, _parquet(self._suites(role, digest)))
        attacked = self._attacked(self.attacks, f"{role} attacked", digest)
        return pa.concat_tables([pq.read_table(pa.BufferReader(self.store.get(key))), attacked])

    def _attacked(self, attacks: AdaptiveRun, stage: str, digest: str) -> pa.Table:
        from sparring.evaluate.adaptive.budget import budget

        cost = budget(self.config, len(set(self.inputs.models.values())), len(attacks.behaviors))
        self.progress.update(stage, 0, cost.tries, str(cost))
        return attacks.answers(digest, partial(self.progress.update, stage))

    def _suites(self, role: Role, digest: str) -> pa.Table:
        from sparring.evaluate.answers import answer_suites

        self.progress.update(role, 0, self.suites.num_rows)
        policy, seed = self.policies.get(digest), self.inputs.round_seed
        return answer_suites(policy, digest, self.suites, self.config, seed, partial(self.progress.update, role))


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())
