"""What each step hands on: small frozen models, stored as JSON at `rounds/<n>/<step>/result.json`.

Big things lie in the store under a digest or key; results only name them. `*_key` is a key in the line's store.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Decision = Literal["PROMOTE", "REJECT", "INCONCLUSIVE", "INVALID"]
Role = Literal["candidate", "champion", "reference"]


class Result(BaseModel):
    """Base of all step results."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PrepareResult(Result):
    """The round, the models it starts from and the content-addressed data it uses.

    `start` is the checkpoint that training starts from: the champion, or the base model in the first round.
    `champion` and `reference` are None until a first promotion; `log_head` is the number of the champion log's last
    record when the round began (0: empty log). `replay` names the attacks drawn from the pool for this round.
    `known_demonstrations` are the attacker's demonstrations that stand in a suite of the user's: they teach nobody.
    `held_out` names the seeds whose behaviours never train (`sparring.data.seeds.heldout_behaviors`); "" is none.
    """

    round: int
    start: str
    base: str
    champion: str | None
    reference: str | None
    log_head: int
    seeds: str
    suites: str
    replay: str
    counts: dict[str, int]
    known_demonstrations: tuple[str, ...] = ()
    held_out: str = ""


class SelfplayResult(Result):
    """The candidate and the games that made it. `warm` is the checkpoint after the warm start (first round only).

    `stopped` says which limit of the budget ended the training early, "" when none did; `spent` is what was used of it.
    `guard` says which guard stopped the training: such a candidate is neither asked nor judged, and held.
    """

    candidate: str
    warm: str | None
    games_key: str
    curves_key: str
    games: int
    trained_tokens: int
    stopped: str = ""
    guard: str = ""
    spent: dict[str, float] = {}


class UpdatePoolResult(Result):
    """What the round's games added to the pool, and what the round did with it.

    `metrics` and `ages` are the `values` and `ages` of `sparring.replay.metrics.PoolMetrics`.
    """

    attacks_added: int
    attacks_known: int
    outcomes_added: int
    pool_attacks: int
    pool_outcomes: int
    metrics: dict[str, float] = {}
    ages: dict[int, tuple[int, int]] = {}


class AnswerResult(Result):
    """Answers of each model: Parquet tables by role, all to the same suites with the same decoding.

    `attacks` is the dataset of the adaptive evaluation's attacks ("" without one), frozen before any verdict of the
    gate's judge; `tries` counts them a model. `templates`: how each model was asked (`ChatEncoder.digest`).
    """

    models: dict[Role, str]
    answers: dict[Role, str]
    suites: str
    decoding: str
    templates: dict[Role, str] = {}
    attacks: str = ""
    tries: int = 0


class JudgeResult(Result):
    """Verdict tables by role. `void` counts rows without a usable judgement.

    - `judges`: the gate's judges, name to id; `judge` is the one they make together.
    - `families`: base model that each judge descends from, the reward's under its own name as well.
    - `agreement`: kappas of a panel, as `refused fleiss` and `harmful a~b`.
    - `usage`: what endpoints cost, as `name requests`, `name tokens_in`, `name cost`, `name p95_s`, `name failed: why`.
    - `warnings`: what a reader of the decision should know about the judges.
    """

    models: dict[Role, str]
    verdicts: dict[Role, str]
    suites: str
    decoding: str
    judge: str
    rows: int
    void: int
    judges: dict[str, str] = {}
    families: dict[str, str] = {}
    agreement: dict[str, float] = {}
    usage: dict[str, float] = {}
    warnings: tuple[str, ...] = ()


class GateResult(Result):
    """The decision and where its full record lies."""

    decision: Decision
    reason: str
    decision_key: str
    candidate: str
    log_head: int


class PromoteResult(Result):
    """The record that the round left in the champion log."""

    decision: Decision
    record: int
    champion: str | None


class ReportResult(Result):
    """The round's page."""

    html_key: str
    path: str | None
