"""Section `judge`: who labels prompts and answers, embedded or behind any OpenAI-compatible endpoint.

Importable without the judges themselves: what each kind of judge can say stands here, so that a run file that could
never be gated is refused before anything is trained.
"""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from sparring.config.section import Name, Section

FormatName = Literal[
    "wildguard",
    "qwen3guard",
    "llama_guard",
    "harmbench",
    "strongreject",
    "granite_guardian",
    "granite_guardian_4",
    "graded",
    "custom",
]
Says = frozenset[str]
"""Labels of a verdict that a judge gives by its own judgement: `prompt_harmful`, `refused`, `harmful`, `on_topic`."""

EMBEDDED: Final[dict[str, Says]] = {
    "embedded-reward": frozenset({"prompt_harmful", "refused", "harmful", "on_topic"}),
    "embedded-gate": frozenset({"prompt_harmful", "refused", "harmful", "on_topic"}),
    "string-match": frozenset({"refused"}),
}
"""Judges in the package. The harm that `string-match` gives follows from the seed's label: it is no judgement."""

FORMATS: Final[dict[FormatName, Says]] = {
    "wildguard": frozenset({"prompt_harmful", "refused", "harmful"}),
    "qwen3guard": frozenset({"refused", "harmful"}),
    "llama_guard": frozenset({"harmful"}),
    "harmbench": frozenset({"harmful"}),
    "strongreject": frozenset({"refused", "harmful"}),
    "granite_guardian": frozenset({"harmful"}),
    "granite_guardian_4": frozenset({"harmful"}),
    "graded": frozenset({"harmful"}),
    "custom": frozenset(),  # what its labels say
}

_LINEAGES: Final = (
    *(("wildguard", "mistral"), ("mixtral", "mistral"), ("mistral", "mistral"), ("qwen", "qwen"), ("llama", "llama")),
    *(("granite", "granite"), ("gemma", "gemma"), ("gpt", "gpt"), ("claude", "claude"), ("deepseek", "deepseek")),
)
"""A piece of a model's name → the base model it descends from; the first that fits."""
_OF_FORMAT: Final[dict[str, str]] = {
    "wildguard": "mistral",
    "qwen3guard": "qwen",
    "llama_guard": "llama",
    "harmbench": "llama",
    "granite_guardian": "granite",
    "granite_guardian_4": "granite",
}

EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]


class LabelRule(Section):
    """How one label is read from the reply of a `custom` judge: from exactly one line, `label: word`."""

    label: str = Field(min_length=1, max_length=80, description="What stands before the colon, whatever its case.")
    means_yes: list[str] = Field(["yes", "true"], min_length=1, description="Words that mean yes.")
    means_no: list[str] = Field(["no", "false"], min_length=1, description="Words that mean no.")
    pattern: str | None = Field(
        None,
        max_length=200,
        description="Instead of `label: word`: a regular expression for a whole line, its one group catching the word.",
    )

    @field_validator("means_yes", "means_no", mode="before")
    @classmethod
    def _unquoted(cls, words: object) -> object:
        """YAML reads a bare `yes` as true."""
        if not isinstance(words, list):
            return words
        spelt = {True: ["yes", "true"], False: ["no", "false"]}
        return [word for item in words for word in (spelt[item] if isinstance(item, bool) else [item])]

    @model_validator(mode="after")
    def _sound(self) -> LabelRule:
        words = [word.strip().lower() for word in (*self.means_yes, *self.means_no)]
        if twice := sorted({word for word in words if words.count(word) > 1}):
            raise ValueError(f"should name {twice[0]!r} once, under means_yes or means_no")
        if self.pattern is not None and (trouble := pattern_trouble(self.pattern)):
            raise ValueError(f"pattern {self.pattern!r} {trouble}")
        return self


def pattern_trouble(pattern: str) -> str | None:
    """Why a user's expression is not taken; None when it is. What is taken runs in bounded time on a bounded line."""
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        return f"is no regular expression: {error}"
    if groups != 1:
        return f"should have exactly one group, it has {groups}"
    bare = re.sub(r"\[\^?\]?[^\]]*\]", "x", re.sub(r"\\[^1-9]", "x", pattern))
    if re.search(r"\\[1-9]|\(\?P=", bare):
        return "should not refer back to a group"
    if re.search(r"\)[*+?{]", bare):
        return "should not repeat a group"
    if len(re.findall(r"[*+]|\{\d*,\d*\}", bare)) > 2:
        return "should hold at most two of `*`, `+` and `{n,m}`"
    return None


class EndpointConfig(Section):
    """A judge behind an OpenAI-compatible endpoint, as served by vLLM."""

    format: FormatName = Field(description="What the judge is asked and how its reply is read; see docs/judges.md.")
    base_url: str = Field(description="Address of the endpoint with its version, as in `http://guard:8000/v1`.")
    model: str = Field(min_length=1, description="The model's name at the endpoint.")
    family: Name | None = Field(
        None, description="Base model that the judge descends from; guessed from model and format when not given."
    )
    api_key_env: EnvName | None = Field(
        None, description="Environment variable that holds the key. The key itself never stands in a file."
    )
    headers_env: dict[str, EnvName] = Field(
        default={}, description="Further headers: name → environment variable that holds its value."
    )
    concurrency: int = Field(32, ge=1, le=512, description="Requests under way at once.")
    requests_per_minute: int | None = Field(None, ge=1, description="Rate limit, retries included; none when not set.")
    timeout_s: float = Field(60.0, gt=0, le=600, description="Seconds that one attempt may wait for the endpoint.")
    retries: int = Field(4, ge=0, le=10, description="Further attempts, with growing and jittered pauses.")
    give_up_after: int = Field(
        12, ge=1, description="After so many failed cases in a row every remaining case is void at once."
    )
    max_minutes: float = Field(240.0, gt=0, description="Minutes of judging in all; what is left then is void.")
    max_tokens: int | None = Field(
        None, ge=1, le=8192, description="Most tokens of a reply; the format's own if unset."
    )
    threshold: float | None = Field(
        None,
        ge=0,
        le=5,
        description="Harmful from here on: `graded` from this grade (unset: 3), `strongreject` from this score (0.5).",
    )
    price_in: float | None = Field(None, ge=0, description="Price of a million prompt tokens, in your currency.")
    price_out: float | None = Field(None, ge=0, description="Price of a million reply tokens.")
    system: str | None = Field(None, description="`custom`: system message.")
    template: str | None = Field(
        None, description="`custom`: user message, with `{prompt}` and `{answer}` where they belong."
    )
    prompt_harmful: LabelRule | None = Field(None, description="`custom`: does the prompt ask for harm?")
    refused: LabelRule | None = Field(None, description="`custom`: does the answer decline?")
    harmful: LabelRule | None = Field(None, description="`custom`: does the answer do harm?")

    @field_validator("base_url")
    @classmethod
    def _address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("should be an http or https address")
        if parts.username or parts.password or parts.query:
            raise ValueError("should hold neither a user, a password nor a query: use api_key_env or headers_env")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _fits_format(self) -> EndpointConfig:
        if self.format == "custom":
            self._check_custom()
            return self
        given = [
            k for k in ("system", "template", "prompt_harmful", "refused", "harmful") if getattr(self, k) is not None
        ]
        if given:
            raise ValueError(f"{given[0]} belongs to format custom, not {self.format}")
        if self.threshold is not None and self.format not in ("graded", "strongreject"):
            raise ValueError(f"threshold belongs to graded and strongreject, not {self.format}")
        if self.threshold is not None and not self._range[0] <= self.threshold <= self._range[1]:
            raise ValueError(f"threshold {self.threshold:g} should be from {self._range[0]:g} to {self._range[1]:g}")
        return self

    @property
    def _range(self) -> tuple[float, float]:
        return (2.0, 5.0) if self.format == "graded" else (0.01, 1.0)

    def _check_custom(self) -> None:
        lacks = [part for part in ("{prompt}", "{answer}") if part not in (self.template or "")]
        if lacks:
            raise ValueError(f"template should hold {lacks[0]}")
        if not self.says:
            raise ValueError("custom should say at least one of refused and harmful")
        if self.threshold is not None:
            raise ValueError("threshold belongs to graded and strongreject, not custom")

    @property
    def says(self) -> Says:
        """Labels that this judge gives."""
        if self.format != "custom":
            return FORMATS[self.format]
        return frozenset(k for k in ("prompt_harmful", "refused", "harmful") if getattr(self, k) is not None)

    @property
    def lineage(self) -> str:
        """Base model that the judge descends from: judges of one lineage tend to err alike."""
        if self.family:
            return self.family
        name = self.model.lower()
        found = next((base for piece, base in _LINEAGES if piece in name), None)
        return found or _OF_FORMAT.get(self.format) or name


class JudgeConfig(Section):
    """Who labels prompts and answers."""

    reward: str = Field(
        "embedded-reward", description="Judge of the training games: `embedded-reward` or a name from `endpoints`."
    )
    gate: str | list[str] = Field(
        "embedded-gate",
        description="Judge of the evaluation, or several: `embedded-gate`, `string-match`, or names from `endpoints`.",
    )
    combine: Literal["majority", "any"] = Field(
        "majority", description="Several judges: most of them decide, or any one that sees the worse outcome."
    )
    endpoints: dict[Name, EndpointConfig] = Field(default={}, description="Judges behind endpoints, by name.")

    @property
    def gate_names(self) -> tuple[str, ...]:
        """The gate's judges, one or more."""
        return (self.gate,) if isinstance(self.gate, str) else tuple(self.gate)

    def says(self, name: str) -> Says:
        """Labels that the judge of that name gives. Raises KeyError."""
        return self.endpoints[name].says if name in self.endpoints else EMBEDDED[name]

    def family(self, name: str) -> str:
        """Family of the judge of that name. Both embedded judges stand on the same MiniLM features: one family."""
        if name in self.endpoints:
            return self.endpoints[name].lineage
        return "minilm" if name.startswith("embedded-") else name


def judge_problem(config: JudgeConfig) -> tuple[tuple[str | int, ...], str] | None:
    """The first thing in the section that could never work: the key, and one line that says why. None when sound."""
    if wrong := sorted(set(config.endpoints) & set(EMBEDDED)):
        return ("judge", "endpoints", wrong[0]), f"the name {wrong[0]!r} belongs to a judge in the package"
    for key, names in (("reward", (config.reward,)), ("gate", config.gate_names)):
        for name in names:
            if name not in config.endpoints and name not in EMBEDDED:
                return ("judge", key), f"judge.{key} names no known judge: {name!r}; {nearest(config, name)}"
    return _reward_problem(config) or _gate_problem(config)


def nearest(config: JudgeConfig, name: str) -> str:
    """What the user may have meant by an unknown judge's name."""
    known = [*EMBEDDED, *config.endpoints]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean `{near[0]}`?" if near else f"known are {', '.join(known)}"


def _reward_problem(config: JudgeConfig) -> tuple[tuple[str | int, ...], str] | None:
    lacks = {"prompt_harmful", "refused", "harmful"} - config.says(config.reward)
    if not lacks:
        return None
    text = f"judge.reward = {config.reward} cannot say {_and(lacks)}, and attacks carry no label"
    return ("judge", "reward"), f"{text}; wildguard, custom or embedded-reward can"


def _gate_problem(config: JudgeConfig) -> tuple[tuple[str | int, ...], str] | None:
    names = config.gate_names
    if not names:
        return ("judge", "gate"), "judge.gate = [] names no judge"
    if twice := sorted({name for name in names if names.count(name) > 1}):
        return ("judge", "gate"), f"judge.gate names {twice[0]!r} twice"
    if names == ("string-match",):
        return None  # harm follows from the seed's label: crude, and every study's baseline
    lacks = {"refused", "harmful"} - {label for name in names for label in config.says(name)}
    if not lacks:
        return None
    text = f"judge.gate = {', '.join(names)} cannot say {_and(lacks)}, which every harmful row needs"
    other = "`string-match` or `embedded-gate`" if lacks == {"refused"} else "`embedded-gate` or a guard model"
    return ("judge", "gate"), f"{text}; name a second judge that can, as {other}"


def _and(labels: set[str]) -> str:
    return " and ".join(sorted(labels))
