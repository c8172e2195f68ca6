"""A judge's measured errors against human labels: the record, where it is kept, and when it is too old to be used.

A calibration lies at `judge/calibrations/<sha256>.json` in the line's store: named by its content, written only if
absent, never changed. `sparring.evaluate.calibrate` makes them, `sparring.gate.correction` uses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from sparring.errors import CorruptError
from sparring.store.base import Store
from sparring.store.canonical import canonical, sha256
from sparring.store.keys import check_key

FOLDER = "judge/calibrations/"
MAX_AGE = 4
"""Rounds after which labels are too old to speak for today's models."""
FEWEST = 10
"""Answers of each truth (refused and not, say) below which a cell is too thin to correct anything with."""

Truth = Literal["refused", "harmful"]
Kind = Literal["harmful", "benign"]
Unit = Annotated[float, Field(ge=0.0, le=1.0)]


class Part(BaseModel):
    """Base: immutable, no unknown keys, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Share(Part):
    """An estimated share with its two-sided 95 % interval.

    `n` counts labelled answers, `clusters` their behaviours; `effective` is the size of a simple random sample that
    would be as precise (n where nothing is clustered or weighted).
    """

    value: Unit
    low: Unit
    high: Unit
    n: int = Field(ge=1)
    clusters: int = Field(ge=1)
    effective: float = Field(gt=0.0)


class Cell(Part):
    """What a judge does with one label among some answers.

    `sensitivity` is P(judge says so | people say so), `specificity` P(judge says not | people say not); None where
    no such answer was labelled. `model`, `kind` (of the prompt) and `slice` are None where all are pooled. `void`
    counts answers that people labelled and the judge did not: in neither share.
    """

    label: Truth
    model: str | None
    kind: Kind | None
    slice: str | None
    sensitivity: Share | None
    specificity: Share | None
    void: int = Field(ge=0)

    @property
    def usable(self) -> bool:
        """Both shares rest on enough answers."""
        shares = (self.sensitivity, self.specificity)
        return all(share is not None and share.n >= FEWEST for share in shares)


class Stratum(Part):
    """Answers among which labels were drawn with one probability: how many there are, were drawn, were labelled."""

    name: str
    population: int = Field(ge=1)
    drawn: int = Field(ge=0)
    labelled: int = Field(ge=0)

    @property
    def weight(self) -> float:
        """Answers that each labelled one stands for; 0 where none was labelled."""
        return self.population / self.labelled if self.labelled else 0.0


class Calibration(Part):
    """One judge against people.

    `files` maps names of what was labelled to sha256. `answers` were used, `repeated` were left out because they
    stood there twice. From a labelling: `round` whose answers were labelled, `labellers`, the `strata` with their
    weights, and, where two people labelled the same answers, the share on which they agree and Cohen's `kappa`.
    """

    schema_version: Literal[1] = 1
    judge: str = Field(min_length=1)
    origin: Literal["file", "labelling"]
    time: AwareDatetime
    files: dict[str, str]
    round: int | None = None
    labellers: list[str] = []
    agreement: Unit | None = None
    kappa: float | None = None
    strata: list[Stratum] = []
    models: list[str]
    answers: int = Field(ge=1)
    repeated: int = 0
    cells: list[Cell]

    @property
    def digest(self) -> str:
        """sha256 (hex) of the canonical record: its name in the store."""
        return sha256(_encode(self))

    def cell(self, label: Truth, model: str | None, kind: Kind | None, slice: str | None = None) -> Cell | None:
        """The cell of exactly these; None stands for "all pooled"."""
        wanted = (label, model, kind, slice)
        return next((cell for cell in self.cells if (cell.label, cell.model, cell.kind, cell.slice) == wanted), None)

    def best(self, label: Truth, model: str, kind: Kind) -> Cell | None:
        """The nearest usable cell: this model on prompts of this kind, this model, all models on this kind, all."""
        for who, what in ((model, kind), (model, None), (None, kind), (None, None)):
            found = self.cell(label, who, what)
            if found is not None and found.usable:
                return found
        return None


def save(store: Store, calibration: Calibration) -> str:
    """Stores a calibration unless it is there; its digest. `store` is the line's."""
    store.put_if_absent(_key(calibration.digest), _encode(calibration))
    return calibration.digest


def load(store: Store, digest: str) -> Calibration:
    """The calibration of a digest, verified. Raises NotFoundError and CorruptError."""
    key = _key(check_key(digest))
    data = store.get(key)
    if sha256(data) != digest:
        raise CorruptError(f"calibration {key!r} in {store.url} has digest {sha256(data)}", hint="calibrate again")
    try:
        return Calibration.model_validate_json(data)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "file"
        raise CorruptError(f"calibration {key!r} in {store.url}: {where}: {fault['msg']}") from error


def stored(store: Store) -> list[Calibration]:
    """All calibrations of a line, the oldest first. Raises CorruptError."""
    names = (key.removeprefix(FOLDER).removesuffix(".json") for key in store.list(FOLDER) if key.endswith(".json"))
    return sorted((load(store, name) for name in names), key=lambda found: (found.time, found.digest))


def latest(store: Store, judge: str) -> Calibration | None:
    """The newest calibration of the judge with this id, or None: another version of a judge makes other errors."""
    return next((found for found in reversed(stored(store)) if found.judge == judge), None)


def staleness(calibration: Calibration, models: Mapping[str, str], round: int, max_age: int = MAX_AGE) -> str | None:
    """Why this calibration does not speak for today's models, as one line; None while it does.

    `models` maps roles to digests. Labels from a file tell no round: they are as fresh as their models.
    """
    absent = [f"{role} {digest[:12]}" for role, digest in models.items() if digest not in calibration.models]
    if calibration.round is not None and round - calibration.round > max_age:
        return f"its labels are of round {calibration.round}, {round - calibration.round} rounds ago (limit {max_age})"
    if absent:
        known = ", ".join(name[:12] for name in calibration.models[:4])
        return f"no answer of {', '.join(absent)} was labelled, only of {known}"
    return None


def _key(digest: str) -> str:
    return f"{FOLDER}{digest}.json"


def _encode(calibration: Calibration) -> bytes:
    return canonical(calibration.model_dump(mode="json"))
