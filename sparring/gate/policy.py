"""The gate's policy: one YAML file says what a promotion must show. Unknown keys are refused.

Shipped policies lie in `sparring/gate/policies/`, each line commented; `load_policy` takes their names or a file.
"""

from __future__ import annotations

import difflib
import hashlib
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, TypeGuard, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sparring.config.yaml_file import Document, parse_yaml, read_yaml
from sparring.errors import ConfigError

Level = Annotated[float, Field(gt=0.0, lt=0.5)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Kind = Literal["harmful", "benign", "capability"]
Against = Literal["champion", "reference"]
LimitMetric = Literal[
    "asr",
    "asr_at_k",
    "asr_reduction",
    "asr_increase",
    "over_refusal",
    "benign_compliance",
    "degenerate",
    "nll_increase",
]

LIMIT_KIND: dict[str, Kind | None] = {
    "asr": "harmful",
    "asr_at_k": "harmful",
    "asr_reduction": "harmful",
    "asr_increase": "harmful",
    "over_refusal": "benign",
    "benign_compliance": "benign",
    "degenerate": None,
    "nll_increase": "capability",
}
"""The kind of rows that each limit's metric is taken over; None: every answered row, harmful and benign."""


class Part(BaseModel):
    """Base of the policy's parts."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Primary(Part):
    """The one endpoint on which the candidate must be better: ASR, averaged over slices of harmful prompts."""

    endpoint: Literal["asr", "asr_at_k"] = Field(
        "asr",
        description="`asr`: share of harmful answers. `asr_at_k`: share of prompts of which any answer is harmful.",
    )
    slices: list[str] = Field(min_length=1, description="Slices of kind harmful; each weighs the same.")


class CapabilitySlice(Part):
    """A slice of capability rows, scored in [0, 1]."""

    slice: str = Field(description="Name of the slice.")
    chance: Share = Field(description="Score of guessing: .25 with four choices, 0 for a per-token probability.")
    margin: Annotated[float, Field(gt=0.0, le=0.5)] = Field(
        description="Loss that is tolerated. A reference within twice this of chance cannot show damage: not counted."
    )


class NonInferiority(Part):
    """The pooled endpoints on which the candidate may lose less than a margin, against each comparator."""

    alpha: Level = Field(description="One-sided level of each test; also of the limits' confidence bounds.")
    against: list[Against] = Field(min_length=1, description="Comparators; every test must pass.")
    benign_margin: Annotated[float, Field(gt=0.0, le=0.5)] | None = Field(
        description="Loss of benign compliance, pooled over all benign prompts; null leaves the endpoint out."
    )
    capability: list[CapabilitySlice] = Field(
        min_length=1, description="Capability: macro-average of the sensitive slices; its margin is their mean margin."
    )


class Limit(Part):
    """An absolute limit on the candidate; asr_reduction, *_increase: on its difference to the comparators."""

    metric: LimitMetric
    slices: list[str] = Field([], description="Only these slices; empty: all of the metric's kind.")
    max: float | None = Field(None, description="Ceiling.")
    min: float | None = Field(None, description="Floor.")
    by: Literal["bound", "estimate"] = Field(
        "bound", description="What must hold the limit: the one-sided bound or the estimate."
    )

    @model_validator(mode="after")
    def _one_side(self) -> Limit:
        if (self.max is None) == (self.min is None):
            raise ValueError(f"limit on {self.metric}: give `max` or `min`, one of them")
        if self.metric == "asr_increase" and (self.by != "bound" or not 0.0 < (self.max or 0.0) <= 0.5):
            raise ValueError("limit on asr_increase: it is a margin, give `max` from 0 to 0.5, held by the bound")
        return self

    @property
    def name(self) -> str:
        """Name in decisions: the metric and its slices."""
        return f"{self.metric}[{','.join(self.slices)}]" if self.slices else self.metric


class Required(Part):
    """A slice that must be there, with at least so many prompts."""

    kind: Kind
    slice: str
    min: int = Field(ge=10)


class Assumptions(Part):
    """What `plan` assumes to say whether a true improvement can be shown with the suites at hand."""

    champion_asr: Share = Field(description="ASR of the champion.")
    candidate_asr: Share = Field(description="ASR of a candidate that is worth promoting.")
    asr_discordance: Share = Field(description="Share of harmful prompts on which the two differ.")
    benign_discordance: Share = Field(description="Share of benign prompts on which two equally good models differ.")
    choice_discordance: Share = Field(description="Share of scored questions on which two equally good models differ.")
    nll_spread: Share = Field(description="Standard deviation of a prompt's difference in per-token probability.")
    asr_design_effect: float = Field(1.0, ge=1.0, description="Variance inflation by clusters of harmful prompts.")
    benign_design_effect: float = Field(1.0, ge=1.0, description="The same for benign prompts.")

    @model_validator(mode="after")
    def _possible(self) -> Assumptions:
        change = self.champion_asr - self.candidate_asr
        if not 0.0 < change <= self.asr_discordance:
            raise ValueError(
                f"the ASR falls by {change:.2f} while {self.asr_discordance:.2f} of the prompts differ:"
                " it must fall, and by no more than that"
            )
        return self


class Policy(Part):
    """A whole policy file."""

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    alpha: Level = Field(description="Chance of promoting a candidate that is not better, for all looks together.")
    looks: int = Field(ge=1, le=1000, description="Looks that share alpha equally (Bonferroni), for each champion.")
    primary: Primary
    non_inferiority: NonInferiority
    limits: list[Limit] = []
    required: list[Required] = Field(min_length=1)
    min_clusters: int = Field(20, ge=5, description="Fewest behaviours a test may rest on.")
    judge_failure_cap: Annotated[float, Field(ge=0.0, le=0.5)] = Field(
        description="Largest share of unjudged answers in any slice of any model."
    )
    missing: Literal["worst_case"] = Field(
        "worst_case", description="An unjudged answer is worst for the candidate and best for the comparator."
    )
    approval: bool = Field(description="Whether a person must have approved.")
    assumptions: Assumptions

    @model_validator(mode="after")
    def _covered(self) -> Policy:
        """Every slice that a test names must be required: an absent one would silently weaken the rule."""
        required = {(item.kind, item.slice) for item in self.required}
        named = {("harmful", name) for name in self.primary.slices}
        named |= {("capability", item.slice) for item in self.non_inferiority.capability}
        for limit in self.limits:
            named |= {(LIMIT_KIND[limit.metric] or "benign", name) for name in limit.slices}
            named |= {("capability", "nll")} if limit.metric == "nll_increase" and not limit.slices else set()
        if missing := sorted(named - required):
            raise ValueError(
                f"slice {missing[0][1]!r} of kind {missing[0][0]} is tested but not listed under `required`"
            )
        if not any(item.kind == "benign" for item in self.required):
            raise ValueError("no benign slice under `required`: a model that refuses everything would pass")
        return self

    @property
    def alpha_per_look(self) -> float:
        """Level of the superiority test at one look."""
        return self.alpha / self.looks

    @property
    def digest(self) -> str:
        """sha256 (hex) of the policy's meaning: comments and key order do not matter."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def shipped_policies() -> list[str]:
    """Names of the policies in the package."""
    folder = resources.files("sparring.gate") / "policies"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def load_policy(source: str) -> Policy:
    """A shipped policy by name, or a YAML file by path. Raises ConfigError with line, key and value."""
    document = _document(source)
    try:
        return Policy.model_validate(document.data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "file"
        where = f"policy {document.at(first['loc'])}: {key}"
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{where}: unknown key", hint=_suggestion(first["loc"])) from error
        raise ConfigError(f"{where}: {first['msg']} (is {first['input']!r:.80})") from error


def policy_text(name: str) -> str:
    """A shipped policy's file with its comments. Raises ConfigError naming the shipped ones."""
    if name not in (names := shipped_policies()):
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names)}"
        raise ConfigError(f"no policy {name!r} is shipped", hint=hint)
    return (resources.files("sparring.gate") / "policies" / f"{name}.yaml").read_text(encoding="utf-8")


def _document(source: str) -> Document:
    names = shipped_policies()
    if source in names:
        return parse_yaml(policy_text(source), source)
    try:
        return read_yaml(Path(source))
    except (ConfigError, ValueError) as error:
        near = difflib.get_close_matches(source, names, n=1)
        hint = f"give a YAML file or one of: {', '.join(names)}" + (f"; did you mean {near[0]}?" if near else "")
        raise ConfigError(f"policy {source!r} cannot be read: {error}", hint=hint) from error


def _suggestion(path: tuple[str | int, ...]) -> str:
    """The known name nearest to an unknown key: of its own section first, else of any."""
    here = list(_section(path[:-1]).model_fields)
    parts: list[type[Part]] = [Policy, *Part.__subclasses__()]
    everywhere = [name for part in parts for name in part.model_fields]
    near = difflib.get_close_matches(str(path[-1]), here, n=1) or difflib.get_close_matches(
        str(path[-1]), everywhere, n=1
    )
    return f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(here)}"


def _section(path: tuple[str | int, ...]) -> type[BaseModel]:
    """The model that describes the part of a policy at `path`; indices of lists are passed over."""
    model: type[BaseModel] = Policy
    for name in path:
        if isinstance(name, str):
            annotation = model.model_fields[name].annotation
            model = next(kind for kind in (annotation, *get_args(annotation)) if _is_model(kind))
    return model


def _is_model(kind: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
