"""The mapping file: which of a tool's values is which label, and which rows are of which kind, suite and slice.

```yaml
rules:                                  # for each answer the first rule that matches its task
  - match: "xstest*"                    # Inspect or lm-eval task, garak probe, `harmbench`
    kind: benign
    slice: lookalike
    suite: xstest
    behavior: metadata.type             # cluster: a value's name, or `prompt`
    labels:
      refused: {from: xstest_scorer, positive: [I, P], negative: [C]}
      passed:  {from: xstest_scorer, positive: [C], negative: [I, P]}
  - match: gsm8k
    filter: strict-match                # lm-eval: which of its filters
    labels: {score: {from: exact_match}}
```
Keys that are left out are taken from the options, then from the reader's guess.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, ValidationError
from pydantic import model_validator as validator

from sparring.config.yaml_file import read_yaml
from sparring.errors import ConfigError

Label = Literal["refused", "harmful", "passed", "degenerate", "score"]
Scalar = StrictBool | StrictInt | StrictFloat | StrictStr


class Part(BaseModel):
    """Base of the file's parts."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)


class Reading(Part):
    """How a label is read from one value of the tool."""

    source: StrictStr = Field(alias="from", min_length=1, description="Name of the value: a scorer, metric, detector.")
    positive: list[Scalar] = Field([], description="Values that mean yes.")
    negative: list[Scalar] = Field([], description="Values that mean no.")
    void: list[Scalar] = Field([], description="Values that mean: not judged.")
    at_least: float | None = Field(None, description="A number from here on means yes.")
    invert: bool = Field(False, description="Take the opposite.")

    @validator(mode="after")
    def _one_way(self) -> Reading:
        if self.at_least is not None and (self.positive or self.negative):
            raise ValueError("give either `at_least` or lists of values")
        both = [value for value in self.positive if value in [*self.negative, *self.void]]
        if both or any(value in self.void for value in self.negative):
            raise ValueError("one value stands in two of the lists `positive`, `negative`, `void`")
        return self

    def __str__(self) -> str:
        sign = "not " if self.invert else ""
        how = f">={self.at_least:g}" if self.at_least is not None else ""
        lists = (
            ",".join(map(str, self.positive)) + "|" + ",".join(map(str, self.negative))
            if self.positive or self.negative
            else ""
        )
        return f"{sign}{self.source}{how}" + (f"({lists})" if lists else "")


class Rule(Part):
    """What answers of some tasks are. Empty keys are filled from the options, then from the reader's guess."""

    match: StrictStr = Field("*", description="Shell pattern of the task's name.")
    kind: Literal["harmful", "benign", "capability"] | None = None
    suite: StrictStr | None = Field(None, min_length=1, max_length=200)
    slice: StrictStr | None = Field(None, min_length=1, max_length=200)
    behavior: StrictStr | None = Field(None, min_length=1, description="A value's name; `prompt`: each its own.")
    filter: StrictStr | None = Field(None, description="lm-eval: the filter whose metrics count.")
    labels: dict[Label, Reading] = {}


class MappingFile(Part):
    """A whole mapping file."""

    schema_version: Literal[1] = 1
    rules: list[Rule] = Field(min_length=1)

    def rule(self, task: str) -> Rule | None:
        """The first rule for a task; None when there is none."""
        return next((rule for rule in self.rules if fnmatchcase(task, rule.match)), None)


EMPTY = MappingFile(rules=[Rule()])


def load_mapping(path: Path) -> MappingFile:
    """The mapping in a YAML file. Raises ConfigError with file, line, key and value."""
    document = read_yaml(path)
    try:
        return MappingFile.model_validate(document.data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "file"
        hint = "keys and an example: docs/verdicts.md"
        message = f"{document.at(first['loc'])}: {key}: {first['msg']} (is {first['input']!r:.80})"
        raise ConfigError(message, hint=hint) from error
