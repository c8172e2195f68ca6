"""`decide`: verdict tables and a policy in, one of four outcomes out. Pure; anything that is missing is INVALID.

The order of the rule: nothing changed → REJECT; not comparable or incomplete → INVALID; a test or limit that is
plainly broken → REJECT; α spent, something not shown, or no approval → INCONCLUSIVE; only then PROMOTE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from sparring.gate import endpoints
from sparring.gate.evidence import Evidence, line_up, prompts
from sparring.gate.outcome import Decision, Endpoint, Outcome
from sparring.gate.policy import CapabilitySlice, Policy
from sparring.gate.spending import available


def decide(
    policy: Policy,
    candidate: pa.Table,
    champion: pa.Table,
    reference: pa.Table | None,
    *,
    first_run: bool,
    approved: bool = False,
    alpha_spent: float = 0.0,
    expected: Mapping[str, str] | None = None,
    warnings: Sequence[str] = (),
    resample: bool = False,
) -> Decision:
    """Decides about a candidate from verdict tables (`sparring.evaluate.verdicts`).

    In the first run `champion` is the table of the base model and `reference` is None; later `reference` is the
    first promoted champion's. `alpha_spent` is what earlier looks at this champion used of `policy.alpha`.
    `expected` gives each role's model digest where the caller knows it: a table about another model is INVALID.
    `warnings` are repeated in the decision and change nothing; `resample` adds the primary's bootstrap interval, which
    changes nothing either.
    """
    tables = {"candidate": candidate, "champion": champion} | ({} if reference is None else {"reference": reference})
    models = {role: _single(table, "model") for role, table in tables.items()}
    facts = _Facts(policy, models, _judge(candidate), first_run, approved, alpha_spent, tuple(warnings), resample)
    missing = _wrong_models(models, expected or {}) + _wrong_roles(policy, first_run, reference is not None)
    if not missing and models["candidate"] == models["champion"]:
        return facts.unchanged()
    evidence, incomparable = line_up(policy, tables, first_run=first_run)
    if evidence is None or missing:
        return facts.invalid(missing + incomparable)
    sensitive, insensitive = endpoints.sensitivity(policy, evidence)
    if not sensitive:
        return facts.invalid(["no capability slice is sensitive: damage could not be seen", *insensitive])
    return facts.judged(evidence, sensitive, insensitive)


def invalid(
    policy: Policy,
    missing: list[str],
    *,
    models: Mapping[str, str],
    first_run: bool,
    alpha_spent: float = 0.0,
    warnings: Sequence[str] = (),
) -> Decision:
    """INVALID for what is wrong before tables can be compared: an unreadable file, another suite, another policy."""
    known: dict[str, str | None] = {"candidate": None, "champion": None, **models}
    return _Facts(policy, known, None, first_run, False, alpha_spent, tuple(warnings)).invalid(missing)


def stopped(policy: Policy, reason: str, *, models: Mapping[str, str], first_run: bool) -> Decision:
    """REJECT without looking, for a `reason` that lies in the candidate's training; spends nothing."""
    known: dict[str, str | None] = {"candidate": None, "champion": None, **models}
    return _Facts(policy, known, None, first_run, False, 0.0, ())._decision("REJECT", reason, [reason])


@dataclass(frozen=True)
class _Facts:
    """What every decision repeats."""

    policy: Policy
    models: Mapping[str, str | None]
    judge: str | None
    first_run: bool
    approved: bool
    alpha_spent: float
    warnings: tuple[str, ...]
    resample: bool = False

    @property
    def alpha(self) -> float:
        """Level that this look may use; 0 when the policy's α is spent."""
        return available(self.policy, self.alpha_spent)

    def invalid(self, missing: list[str]) -> Decision:
        """INVALID: what is missing, exactly."""
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        decision = self._decision("INVALID", f"the evaluation cannot carry a decision: {missing[0]}{more}", missing)
        return decision.model_copy(update={"missing": missing})

    def unchanged(self) -> Decision:
        """REJECT without looking: the candidate is what it would replace."""
        what = "the base model" if self.first_run else "the champion"
        reason = f"nothing changed: the candidate is {what}, digest for digest"
        return self._decision("REJECT", reason, [reason])

    def judged(self, evidence: Evidence, sensitive: list[CapabilitySlice], insensitive: list[str]) -> Decision:
        """The tests and limits, and what follows from them."""
        tests = _tests(self.policy, evidence, sensitive, self.alpha or self.policy.alpha_per_look)
        outcome, reason = self._outcome(tests)
        alarms = endpoints.alarms(self.policy, evidence)
        notes = [f"not counted: {line}" for line in insensitive]
        notes += [
            f"alarm: {alarm.name} is worse than the {evidence.called(alarm.against)}'s by {alarm.estimate:.1%}"
            for alarm in alarms
            if alarm.alarm
        ]
        decision = self._decision(outcome, reason, [*(test.text for test in tests), *notes])
        found = {"endpoints": tests, "alarms": alarms, "insensitive": insensitive}
        found |= {"resampled": endpoints.resampled(self.policy, evidence) if self.resample else None}
        counts = {"prompts": _prompts(evidence), "unjudged": _unjudged(evidence)}
        return decision.model_copy(update=found | counts)

    def _outcome(self, tests: list[Endpoint]) -> tuple[Outcome, str]:
        if failed := [test for test in tests if test.status == "fail"]:
            more = f" (and {len(failed) - 1} more reasons)" if len(failed) > 1 else ""
            return "REJECT", failed[0].text + more
        if self.alpha == 0.0:
            return "INCONCLUSIVE", self._spent()
        if opened := [test for test in tests if test.status == "open"]:
            return "INCONCLUSIVE", _open_reason(opened)
        if self.policy.approval and not self.approved:
            how = "`sparring approve`" + (" or `gate.approve_first_run`" if self.first_run else "")
            return (
                "INCONCLUSIVE",
                f"waits for approval: every test is passed, policy {self.policy.name} wants a person's yes ({how})",
            )
        versus = "base model" if self.first_run else "champion"
        return "PROMOTE", f"better than the {versus}, and nothing lost: {tests[0].text}"

    def _spent(self) -> str:
        return (
            f"α is spent: earlier looks at this champion used {self.alpha_spent:.3g} of {self.policy.alpha:.3g}"
            f" and one more look needs {self.policy.alpha_per_look:.2g};"
            " begin another line, or decide on a policy with a larger alpha"
        )

    def _decision(self, outcome: Outcome, reason: str, reasons: list[str]) -> Decision:
        return Decision(
            outcome=outcome,
            reason=reason,
            reasons=reasons,
            missing=[],
            candidate=self.models["candidate"],
            champion=self.models["champion"],
            reference=self.models.get("reference"),
            judge=self.judge,
            policy=self.policy.name,
            policy_digest=self.policy.digest,
            first_run=self.first_run,
            approved=self.approved,
            alpha=self.alpha,
            alpha_spent=self.alpha_spent,
            endpoints=[],
            alarms=[],
            insensitive=[],
            prompts={},
            unjudged={},
            warnings=list(self.warnings),
        )


def _tests(policy: Policy, evidence: Evidence, sensitive: list[CapabilitySlice], alpha: float) -> list[Endpoint]:
    tests = [endpoints.primary(policy, evidence, alpha)]
    for against in policy.non_inferiority.against:
        if (benign := endpoints.benign(policy, evidence, against)) is not None:
            tests.append(benign)
        tests.append(endpoints.capability(policy, evidence, against, sensitive))
    return tests + list(endpoints.limits(policy, evidence))


def _open_reason(opened: list[Endpoint]) -> str:
    first = opened[0].text
    wanted = [test.more_prompts for test in opened]
    if None in wanted:
        return f"{first}; no realistic number of prompts would decide it"
    parts = [f"{test.more_prompts} more for {test.name}" for test in opened]
    return f"{first}; prompts needed at power .8: {', '.join(parts)}"


def _wrong_models(models: Mapping[str, str | None], expected: Mapping[str, str]) -> list[str]:
    found = [f"the {role}'s verdict table names no single model" for role, model in models.items() if model is None]
    for role, digest in expected.items():
        if role in models and models[role] not in (None, digest):
            found.append(f"the {role}'s verdict table is about model {models[role]}, the round's {role} is {digest}")
    return found


def _wrong_roles(policy: Policy, first_run: bool, has_reference: bool) -> list[str]:
    """The reference is absent exactly in the first run."""
    if first_run and has_reference:
        return ["a reference is given in the first run, where none can exist"]
    if not first_run and not has_reference:
        return ["the reference's verdict table is missing"]
    if first_run and "reference" in policy.non_inferiority.against:
        return [f"policy {policy.name} compares with the reference, which the first run has not: use `first-run`"]
    return []


def _judge(table: pa.Table) -> str | None:
    """The judge of the answers; capability rows carry the name of what scored them."""
    if any(table.column_names.count(name) != 1 for name in ("judge", "kind")):
        return None
    try:
        scored = pc.fill_null(pc.equal(table["kind"].cast(pa.string()), "capability"), False)
    except pa.ArrowException:  # no text: the table is INVALID, and says so itself
        return None
    judges = table["judge"].filter(pc.invert(scored)).unique().to_pylist()
    return str(judges[0]) if len(judges) == 1 else None


def _single(table: pa.Table, column: str) -> str | None:
    if table.column_names.count(column) != 1:
        return None
    values = table[column].unique().to_pylist()
    return values[0] if len(values) == 1 and isinstance(values[0], str) and values[0] else None


def _prompts(evidence: Evidence) -> dict[str, int]:
    """Prompts by `kind/slice`."""
    return {f"{kind}/{name}": prompts(evidence.design, rows) for (kind, name), rows in evidence.design.parts.items()}


def _unjudged(evidence: Evidence) -> dict[str, int]:
    """Rows without a usable judgement by role."""
    counts = {str(role): int(side.unjudged.sum()) for role, side in evidence.comparators.items()}
    return {"candidate": int(evidence.candidate.unjudged.sum()), **counts}
