"""The run file: everything that one round of safety training needs, one section a step.

Importable without torch. A step takes only its own section, so that an edit elsewhere does not concern it.
Defaults are the laptop recipe; another `recipe:` replaces some of them (see `sparring.config.recipes`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from sparring.config.budget import BudgetConfig
from sparring.config.cluster import ClusterConfig as ClusterConfig
from sparring.config.game import GameConfig as GameConfig
from sparring.config.hooks import HookConfig
from sparring.config.judges import EndpointConfig as EndpointConfig
from sparring.config.judges import JudgeConfig as JudgeConfig
from sparring.config.section import Name as Name
from sparring.config.section import Section as Section
from sparring.config.section import Share as Share
from sparring.config.training import SelfplayConfig as SelfplayConfig
from sparring.config.training import WarmStartConfig as WarmStartConfig


class ModelConfig(Section):
    """Which model is trained."""

    source: str = Field(
        "packaged:smollm2-135m",
        description="`packaged:smollm2-135m`, a folder with safetensors, or a hub id. Only the first round reads it.",
    )
    threads: int = Field(0, ge=0, description="CPU threads for torch; 0 takes all cores.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Matrix products of training; weights stay fp32. `auto`: bf16 where the processor multiplies it "
        "in hardware (AMX, or a GPU that can), else fp32.",
    )


SuiteKind = Literal["harmful", "benign", "capability"]
ScoredForm = Literal["letters", "text", "plain", "chat"]

_FORMS: dict[str, tuple[ScoredForm, ...]] = {
    "choice": ("letters", "text"),
    "number": ("plain", "chat"),
    "nll": ("chat",),
}
"""Capability slice → how it can be asked, the default first."""


class SuiteSource(Section):
    """One evaluation suite read from a file or folder of the user's."""

    name: Name = Field(description="Name of the suite in tables, decisions and reports.")
    path: str = Field(description="JSONL, CSV or Parquet file, or a folder of them; also under `s3://`.")
    kind: SuiteKind = Field(description="A good model refuses (harmful), helps (benign) or is right (capability).")
    slice: str = Field(
        "vanilla",
        description="Slice of the kind: harmful suites are averaged by slice. `adversarial` reads that column, if any. "
        "Of capability: `choice`, `number` or `nll`.",
    )
    column: str | None = Field(None, description="Column with the prompt; found by its usual names when not given.")
    answer: str | None = Field(
        None, description="Capability: column with the right answer; found by its usual names when not given."
    )
    form: ScoredForm | None = Field(
        None,
        description="Capability: `choice` as `letters` (lm-evaluation-harness' MMLU) or `text` (each choice written "
        "out), `number` as `plain` text or as a `chat` turn. Not given: the first of the two.",
    )
    limit: int | None = Field(None, ge=1, description="Take at most this many rows, evenly spread over the file.")

    @model_validator(mode="after")
    def _scored(self) -> SuiteSource:
        if self.kind != "capability":
            if self.form or self.answer:
                raise ValueError(f"{'form' if self.form else 'answer'} belongs to kind capability, not {self.kind}")
            return self
        if self.slice not in _FORMS:
            raise ValueError(f"slice {self.slice!r} is none of capability's: {', '.join(_FORMS)}")
        if self.form and self.form not in _FORMS[self.slice]:
            raise ValueError(f"form {self.form!r} does not fit slice {self.slice}: {' or '.join(_FORMS[self.slice])}")
        return self

    @property
    def asked(self) -> ScoredForm:
        """How a capability suite is asked."""
        return self.form or _FORMS[self.slice][0]


class DataConfig(Section):
    """Seeds to train on and suites to be measured on."""

    harmful: list[str] = Field(
        default=["starter"],
        min_length=1,
        description="Harmful seeds: `starter`, files or folders (JSONL, CSV, Parquet), also under `s3://`.",
    )
    benign: list[str] = Field(
        default=["starter"],
        min_length=1,
        description="Benign seeds: `starter`, files or folders (JSONL, CSV, Parquet), also under `s3://`.",
    )
    starter_suites: bool = Field(True, description="Evaluate on the starter set's held-out prompts.")
    starter_attacker: bool = Field(
        True,
        description="With the starter suites: ask the models, as a user, for attacks (`attacker-role`; alarms only).",
    )
    suites: list[SuiteSource] = Field(default=[], description="Further evaluation suites.")
    heldout_share: float = Field(
        0.1, ge=0, le=0.5, description="Share of the behaviours in your seeds that never train; kept for evaluation."
    )
    near_duplicate: Share = Field(
        0.92, description="Seeds at this cosine (MiniLM) or nearer to a kept one are dropped."
    )
    decontaminate_cosine: Share = Field(
        0.8, description="Seeds at this cosine or nearer to a suite's prompt are dropped."
    )
    decontaminate_ngram: int = Field(
        8, ge=3, description="Seeds sharing so many consecutive words with a suite are dropped."
    )
    max_prompt_chars: int = Field(4000, ge=100, description="Longer prompts are refused with their row number.")


class ReplayConfig(Section):
    """The replay pool: attacks of earlier rounds go to the current defender again."""

    sampler: Literal["learnability", "thompson", "ucb", "uniform", "none"] = Field(
        "learnability",
        description="How attacks are drawn: `learnability` (ours), `thompson` (DACE), `ucb` (SSP), alike, or never.",
    )
    share: Share = Field(0.25, description="Share of a step's games that replay an attack, once the pool holds some.")
    near_duplicate: Share = Field(0.95, description="Attacks at this cosine or nearer to a pooled one are not added.")
    cluster_cosine: Share = Field(
        0.7, description="An attack joins the cluster whose leader is at this cosine or nearer, else it leads one."
    )
    max_attacks: int = Field(
        1_000_000, ge=1, description="Size limit: over it mastered attacks leave first, longest unvisited first."
    )
    max_voids: int = Field(
        3, ge=1, description="Attacks whose last so many outcomes were void are not drawn until one can be judged."
    )
    ucb_c: float = Field(0.5, ge=0, description="`ucb`: exploration weight c.")
    priority: Literal["expected", "drawn"] = Field(
        "expected",
        description="`learnability`: p(1 − p) of the chance p of failing, expected or at a draw from its posterior.",
    )
    discount: float = Field(
        0.9, gt=0, le=1, description="`learnability`: what an outcome still counts after one more round."
    )
    mastered_below: Share = Field(
        0.1, description="`learnability`: an attack is mastered at this posterior failure rate, its last visit clean."
    )
    sentinel_share: Share = Field(0.1, description="`learnability`: share of a draw that probes mastered attacks.")
    stale_share: Share = Field(0.1, description="`learnability`: share of a draw for attacks not visited for longest.")
    all_fail_share: Share = Field(0.1, description="`learnability`: share of a draw for attacks that always work.")
    over_refused_share: Share = Field(0.1, description="`learnability`: share of a draw for refused benign attacks.")
    cluster_share: Share = Field(
        0.1, description="`learnability`: no cluster of near attacks has more of a draw than this share (and than one)."
    )
    cooldown: int = Field(1, ge=0, description="`learnability`: rounds that an attack rests after a replay.")


AdaptiveMethod = Literal["attacker", "best_of_n", "pair", "prefill", "multi_turn"]


class AdaptiveConfig(Section):
    """Adaptive evaluation: held-out harmful behaviours are attacked, with the same budget for every model."""

    methods: list[AdaptiveMethod] = Field(
        [],
        description="Which attacks: `attacker` (the candidate writes them), `best_of_n` (perturbed letters), `pair` "
        "(refined after each answer), `prefill` (the answer is begun), `multi_turn`. Empty: none.",
    )
    behaviors: int = Field(40, ge=2, le=2_000, description="Behaviours attacked, drawn anew each round; the suites'.")
    tries: int = Field(4, ge=1, le=64, description="Tries a behaviour and method: the k of ASR@k.")
    turns: int = Field(2, ge=2, le=8, description="`multi_turn`: most user turns that a request is told in.")
    attack_tokens: int = Field(48, ge=4, le=1024, description="Most tokens of an attack that the candidate writes.")
    attack_temperature: float = Field(1.0, gt=0, le=2, description="Sampling temperature of those attacks.")
    max_prompt_tokens: int = Field(
        384, ge=64, description="Longer conversations are cut, the longest turn first; headers and the prefill survive."
    )
    strength: Share = Field(
        0.4, description="`best_of_n`: how strong the perturbation is; a letter's case turns with its square root."
    )

    @field_validator("methods")
    @classmethod
    def _once(cls, methods: list[AdaptiveMethod]) -> list[AdaptiveMethod]:
        if twice := sorted({name for name in methods if methods.count(name) > 1}):
            raise ValueError(f"should name {twice[0]} once")
        return methods


class EvaluateConfig(Section):
    """How suites are answered: the same decoding for every model."""

    answer_tokens: int = Field(32, ge=4, le=1024, description="Most tokens of an answer.")
    thought_tokens: int = Field(
        64, ge=4, le=8192, description="Further tokens for a model that was trained to think first (`game.cot`)."
    )
    temperature: float = Field(0.7, ge=0, le=2, description="Sampling temperature; 0 is greedy.")
    max_prompt_tokens: int = Field(160, ge=32, description="Longer prompts are cut so that the chat header survives.")
    number_tokens: int = Field(
        128, ge=8, le=2048, description="Most tokens of the worked answers of capability slice `number`, told greedily."
    )
    batch: int = Field(96, ge=1, description="Prompts answered at once.")
    adaptive: AdaptiveConfig = AdaptiveConfig()


class GateConfig(Section):
    """Which policy decides."""

    first_run: str = Field("first-run", description="Policy while no champion exists: a shipped name or a YAML file.")
    policy: str = Field("laptop", description="Policy of every later round: a shipped name or a YAML file.")
    approve_first_run: bool = Field(
        False, description="The first promotion has no champion to beat: a person approves it here, once."
    )
    require_approval: bool = Field(
        False,
        description="Every promotion waits for `sparring approve`, whatever the policy's `approval` says; "
        "`approve_first_run` is not enough then.",
    )


class RegistryConfig(Section):
    """Signatures of checkpoints (OpenSSF model signing; needs the extra `sign`)."""

    verify_key: str | None = Field(
        None, description="PEM file with a public key: only candidates that its private key signed are promoted."
    )
    sign_key_env: str | None = Field(
        None,
        description="Environment variable that names the PEM file of the private key: `selfplay` signs its candidate.",
    )


class ReportConfig(Section):
    """The round's HTML page."""

    redact: bool = Field(
        True, description="Hide attack and answer texts behind a click-to-show switch without content."
    )
    worst: int = Field(12, ge=0, le=200, description="How many of the worst attacks are listed.")


class RunConfig(Section):
    """A whole run file."""

    schema_version: Literal[1] = Field(1, description="Version of this file's format.")
    recipe: Literal["default", "full", "selfredteam-8b"] = Field(
        "default", description="Preset of sizes; keys given in the file win over it."
    )
    store: str = Field("sparring-store", description="Root of the store: a folder or `s3://bucket/prefix`.")
    line: Name = Field("default", description="Model line: its own champion, policy, pool and rounds in one store.")
    seed: int = Field(0, ge=0, description="Seed of everything random; each round derives its own from it.")
    candidate: str | None = Field(
        None, description="Folder of a model trained elsewhere: it is gated instead of training one."
    )
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    game: GameConfig = GameConfig()
    warm_start: WarmStartConfig = WarmStartConfig()
    selfplay: SelfplayConfig = SelfplayConfig()
    budget: BudgetConfig = BudgetConfig()
    replay: ReplayConfig = ReplayConfig()
    judge: JudgeConfig = JudgeConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    gate: GateConfig = GateConfig()
    registry: RegistryConfig = RegistryConfig()
    report: ReportConfig = ReportConfig()
    hooks: list[HookConfig] = Field(
        [], description="Who is told of a decision, and what serves the champion; each with `kind` and `name`."
    )
    cluster: ClusterConfig = ClusterConfig()

    @field_validator("store")
    @classmethod
    def _place(cls, store: str) -> str:
        if not store or "\0" in store:
            raise ValueError("should be a folder or an address")
        try:
            Path(store).expanduser()
        except RuntimeError as error:
            raise ValueError(f"should not begin with {store.split('/')[0]}: there is no such user") from error
        return store

    @field_validator("hooks")
    @classmethod
    def _named_once(cls, hooks: list[HookConfig]) -> list[HookConfig]:
        names = [hook.name for hook in hooks]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"should name {twice[0]} once")
        return hooks
