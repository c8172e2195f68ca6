"""Step `answer`: candidate, champion and reference answer the same suites with the same decoding.

In the first round the base model stands in the champion's place. Sampling seeds come from the round's number, so that
re-evaluating a champion is a new measurement.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sparring.config.run import EvaluateConfig
from sparring.progress import Progress
from sparring.registry.checkpoints import load_checkpoint
from sparring.steps.results import AnswerResult, PrepareResult, Role, SelfplayResult
from sparring.store.base import Store
from sparring.store.datasets import load_table

_MODEL_KEY = b"sparring.answered"


@dataclass(frozen=True)
class AnswerInputs:
    """The round, its candidate, the run's seed, torch threads and a local folder for checkpoints."""

    prepared: PrepareResult
    trained: SelfplayResult
    seed: int
    threads: int
    work: Path

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
    """Answers the suites with every model. A killed run keeps the models it had finished."""
    folder = f"rounds/{inputs.prepared.round:06d}/answer"
    suites = load_table(store, inputs.prepared.suites)
    decoding = _decoding(config, inputs.round_seed)
    keys: dict[Role, str] = {}
    for role, digest in inputs.models.items():
        key = f"{folder}/{digest[:16]}.parquet"  # by model: roles that share a model share its answers
        mark = f"{digest}/{inputs.prepared.suites}/{decoding}"
        if not _answered(store, key, mark):
            table = _answer(config, store, inputs, role, digest, suites, progress)
            _put(
                store, key, table.replace_schema_metadata({**(table.schema.metadata or {}), _MODEL_KEY: mark.encode()})
            )
        keys[role] = key
    return AnswerResult(models=inputs.models, answers=keys, suites=inputs.prepared.suites, decoding=decoding)


def _decoding(config: EvaluateConfig, seed: int) -> str:
    """Digest-like name of how answers are sampled: settings, seed and chat encoding."""
    text = json.dumps({**config.model_dump(exclude={"batch"}), "seed": seed, "chat": "template/v1"}, sort_keys=True)
    return sha256(text.encode()).hexdigest()[:16]


def _answered(store: Store, key: str, mark: str) -> bool:
    if not store.exists(key):
        return False
    schema = pq.read_schema(pa.BufferReader(store.get(key)))
    return (schema.metadata or {}).get(_MODEL_KEY) == mark.encode()


def _answer(
    config: EvaluateConfig,
    store: Store,
    inputs: AnswerInputs,
    role: Role,
    digest: str,
    suites: pa.Table,
    progress: Progress,
) -> pa.Table:
    from sparring.evaluate.answers import answer_suites
    from sparring.policy.load import load_policy, set_threads

    set_threads(inputs.threads)
    policy = load_policy(load_checkpoint(store, digest, inputs.work / "checkpoints"))
    progress.update(role, 0, suites.num_rows)
    return answer_suites(
        policy, digest, suites, config, inputs.round_seed, lambda done, total: progress.update(role, done, total)
    )


def _put(store: Store, key: str, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    store.put(key, sink.getvalue().to_pybytes())
