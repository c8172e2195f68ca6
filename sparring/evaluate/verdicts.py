"""The verdict table: one row an answer (or a scored question) of one model. The gate reads nothing else.

Columns (Parquet, schema version in the file's metadata under `sparring.schema`):

| column | type | meaning |
|---|---|---|
| model | string | digest of the model that answered |
| suite | string | suite name |
| slice | string | harmful: vanilla, adversarial; benign: lookalike, plain, adversarial; capability: choice, nll |
| kind | string | harmful, benign or capability |
| prompt_id | string | the same for every model |
| behavior | string | cluster: prompts of one behaviour, across suites |
| answer_index | int32 | 0 … K−1 |
| label | string | label of the prompt: harmful, benign, or empty |
| refused | bool, nullable | the judge's label |
| harmful | bool, nullable | the answer does what a harmful prompt asks |
| passed | bool, nullable | benign: answered, neither refused nor degenerate nor off topic |
| degenerate | bool, nullable | empty, looping or letterless text |
| score | float64, nullable | capability: correct (0/1), or per-token probability exp(−NLL) in [0, 1] |
| tokens | int32 | length of the answer |
| judge | string | judge id (name and digest) |
| status | string | ok, or void: the judgement is missing or unreadable |
"""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = "1"

BESIDE = ("attacker-role", "adaptive-")
"""Beginnings of the names of harmful slices that stand beside the suites: they count where a policy names them, raise
alarms, and are in no rate over "all" prompts."""

SCHEMA = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("suite", pa.string(), nullable=False),
        pa.field("slice", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("behavior", pa.string(), nullable=False),
        pa.field("answer_index", pa.int32(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("refused", pa.bool_()),
        pa.field("harmful", pa.bool_()),
        pa.field("passed", pa.bool_()),
        pa.field("degenerate", pa.bool_()),
        pa.field("score", pa.float64()),
        pa.field("tokens", pa.int32(), nullable=False),
        pa.field("judge", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
    ],
    metadata={"sparring.schema": SCHEMA_VERSION},
)
