"""The page: facts in, one HTML document out. Pure; the same facts give the same bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import jinja2
from markupsafe import Markup

from sparring.config.run import ReportConfig
from sparring.report import attacked, attacks, charts, crossplay, gate, learning, looks, numbers, pool, takeaways, words
from sparring.report.attacks import Cases
from sparring.report.charts import Bar, Block, Chart, Dot, Point, Row
from sparring.report.facts import ROLES, Facts, Role
from sparring.report.learning import Line, Panel
from sparring.report.measures import Measure, Rate, by_category
from sparring.report.metrics import RoundMetrics
from sparring.report.svg import Ink

_COLORS: Mapping[Role, str] = {"candidate": Ink.CANDIDATE, "champion": Ink.CHAMPION, "reference": Ink.REFERENCE}
_BLOCKS = {
    "asr": ("Attack success", "lower is better"),
    "over_refusal": ("Over-refusal of harmless prompts", "lower is better"),
    "capability": ("Capability", "higher is better"),
    "degenerate": ("Broken answers", "lower is better"),
}
_SLICES = {
    "asr.macro": "mean of the slices",
    "over_refusal.pooled": "all together",
    "over_refusal.lookalike": "look-alikes",
    "capability.choice": "multiple choice",
    "capability.nll": "good answers¹",
    "degenerate.all": "all prompts",
}
_MOST_CATEGORIES = 8
_HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)


@dataclass(frozen=True)
class Figure:
    """One key figure beside the banner."""

    name: str
    value: str
    note: str


@dataclass(frozen=True)
class CaseList:
    """A table of worst cases with its heading."""

    title: str
    empty: str
    cases: Cases


def render(facts: Facts, config: ReportConfig, metrics: RoundMetrics) -> str:
    """The whole document. Everything in `facts` is hostile text: it is escaped, or drawn as text."""
    worst, rates = _worst(facts, config), _by_category(facts)
    context = {
        "facts": facts,
        "redact": config.redact,
        "banner": words.banner(facts),
        "figures": _figures(facts),
        "results": _results(facts),
        "results_said": takeaways.results(facts),
        "models": _models(facts),
        "measures": _table(facts),
        "attacked": _attacked(facts),
        "attacked_rows": attacked.rows(facts.attacked, list(_models(facts))),
        "attacked_said": takeaways.attacked(facts),
        "looks": looks.rows(facts.texts),
        "looks_models": {role: _name(facts, role) for role in ROLES if role in facts.texts},
        "tests": gate.tests(facts.decision, facts.policy) if facts.decision else [],
        "gate_said": gate.said(facts.decision) if facts.decision else "",
        "unjudged": gate.unjudged(facts.decision) if facts.decision else "",
        "alarms": gate.alarms(facts.decision) if facts.decision else [],
        "beside": gate.beside(facts.decision) if facts.decision else [],
        "warnings": facts.decision.warnings if facts.decision else [],
        "failures": {step: words.failure(entry.attempts[-1].error) for step, entry in facts.failed.items()},
        "learning": _learning(facts),
        "learning_said": takeaways.learning(facts.curves) if facts.curves and facts.curves.steps else "",
        "averaged": _averaged(facts),
        "games": learning.game_shares(facts.games) if facts.games is not None else [],
        "worst": worst,
        "worst_said": takeaways.attacks(_cases(worst, "broken"), rates.get("candidate", {}), _cases(worst, "won")),
        "categories": _categories(facts, rates),
        "ages": _ages(facts),
        "pool_rounds": _pool_rounds(facts, metrics),
        "pool_said": takeaways.pool(facts.pool) if facts.pool else "",
        "history": _history(facts, metrics),
        "crossplay": crossplay.rows(facts.crossplay),
        "crossplay_said": crossplay.said(facts.crossplay),
        "history_said": takeaways.history([*facts.past, metrics]) if facts.past else "",
        "times": _times(facts),
        "times_said": takeaways.times({step: entry.seconds for step, entry in facts.steps.items()}),
        "provenance": facts.provenance,
    }
    hidden = attacks.known_texts(facts.games, facts.answers) if config.redact else frozenset()
    return _template(hidden).render(context)


def _averaged(facts: Facts) -> int:
    """Steps of self-play whose mean weights the candidate has; 0 when it has the last step's, or a guard stopped it."""
    if facts.config is None or facts.config.candidate or facts.curves is None:
        return 0
    selfplay, played = facts.config.selfplay, len(facts.curves.steps) - facts.curves.warm
    return round(selfplay.steps * selfplay.average_share) if played == selfplay.steps else 0


def _template(hidden: frozenset[str]) -> jinja2.Template:
    """The template; what it prints shows control characters and holds none of the texts to hide, wherever from."""

    def clean(value: object) -> object:
        return _visible(attacks.mask(value, hidden)) if type(value) is str else value

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sparring.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=clean,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=numbers.percent, exact=numbers.exact, interval=numbers.interval)
    return environment.get_template("page.html.j2")


def _visible(value: str) -> str:
    """Control and direction characters as a visible sign: they may neither break the page nor turn its text around."""
    return _HIDDEN.sub("\N{REPLACEMENT CHARACTER}", value)


def _svg(chart: Chart | None) -> dict[str, Markup] | None:
    """The drawings as markup: `sparring.report.svg` serialises them, so that all text in them is escaped already."""
    return None if chart is None else {"wide": Markup(chart.wide), "narrow": Markup(chart.narrow)}


def _models(facts: Facts) -> dict[Role, str]:
    """What the page calls each model that it shows, in order."""
    champion = "base model" if facts.first_run else "champion"
    if not facts.first_run and "reference" in facts.models and not facts.models_differ:
        champion = "champion (also the reference)"
    names: dict[Role, str] = {"candidate": "candidate", "champion": champion, "reference": "reference"}
    return {
        role: names[role] for role in ROLES if role in facts.measures and (role != "reference" or facts.models_differ)
    }


def _name(facts: Facts, role: Role) -> str:
    """The short name beside a dot."""
    return "base model" if facts.first_run and role == "champion" else role


def _measured(facts: Facts) -> list[tuple[str, Mapping[Role, Measure]]]:
    """Measures by key in reading order, each with the models that have it; adaptive slices have their own place."""
    found = (measure for role in ROLES for measure in facts.measures.get(role, ()))
    keys = dict.fromkeys(each.key for each in found if not attacked.is_adaptive(each.slice))
    shown = _models(facts)
    rows = [(key, {role: each for role, each in facts.rates(key).items() if role in shown}) for key in keys]
    return sorted(rows, key=lambda row: list(_BLOCKS).index(row[0].partition(".")[0]))


def _table(facts: Facts) -> list[dict[str, object]]:
    found = []
    for key, by_role in _measured(facts):
        group, _, name = key.partition(".")
        first = next(iter(by_role.values()))
        found.append(
            {
                "order": list(_BLOCKS).index(group),
                "group": _BLOCKS[group][0],
                "slice": _SLICES.get(key, name),
                "strong": key in ("asr.macro", "over_refusal.pooled"),
                "rates": {role: by_role[role].rate if role in by_role else None for role in _models(facts)},
                "prompts": first.rate.prompts,
                "void": sum(measure.rate.void for measure in by_role.values()),
            }
        )
    return found


def _results(facts: Facts) -> dict[str, Markup] | None:
    blocks = []
    for group, (title, hint) in _BLOCKS.items():
        rows = [
            Row(
                _SLICES.get(key, key.partition(".")[2]),
                [Dot(_name(facts, role), _COLORS[role], each.rate) for role, each in by_role.items()],
                strong=key in ("asr.macro", "over_refusal.pooled"),
            )
            for key, by_role in _measured(facts)
            if key.startswith(f"{group}.")
        ]
        blocks += [Block(title, hint, rows)] if rows else []
    if not blocks:
        return None
    label = "Rates with 95 % intervals of each model; the table below holds the same numbers."
    return _svg(charts.chart(partial(charts.dots, blocks), "rates", label))


def _attacked(facts: Facts) -> dict[str, Markup] | None:
    """Attack success by the number of tries: a small chart a method, a line a model."""
    curves = {role: {each.method: each.rates for each in facts.attacked.get(role, ())} for role in _models(facts)}
    panels = [
        Panel(
            method[:1].upper() + method[1:],
            "share of behaviours broken",
            [
                Line("", _COLORS[role], [rate.value for rate in each[method]], [(r.low, r.high) for r in each[method]])
                for role, each in reversed(curves.items())
                if method in each
            ],
            percent=True,
            most=1.0,
        )
        for method in attacked.methods(facts.attacked)
    ]
    if not panels:
        return None
    label = "Attack success of each model by the number of tries; the table below holds the same numbers."
    return _svg(charts.chart(partial(charts.small_multiples, panels, 0, unit="tries"), "tries", label))


def _figures(facts: Facts) -> list[Figure]:
    """Attack success, over-refusal and capability of the candidate, each beside the champion's."""
    found = []
    for name, keys in (
        ("Attack success", ("asr.macro", "asr.vanilla", "asr.adversarial")),
        ("Over-refusal", ("over_refusal.pooled", "over_refusal.plain", "over_refusal.lookalike")),
        ("Questions answered right", ("capability.choice",)),
    ):
        rates = next((rates for rates in map(facts.rates, keys) if "candidate" in rates), {})
        if rates:
            other = "base model" if facts.first_run else "champion"
            note = f"{other} {numbers.percent(rates['champion'].rate.value)}" if "champion" in rates else ""
            found.append(Figure(name, numbers.percent(rates["candidate"].rate.value), note))
    return found


def _learning(facts: Facts) -> dict[str, Markup] | None:
    panels = learning.panels(facts.curves) if facts.curves else []
    if facts.curves is None or not panels:
        return None
    label = f"Training curves: {', '.join(panel.title.lower() for panel in panels)}."
    return _svg(charts.chart(partial(charts.small_multiples, panels, facts.curves.warm), "curves", label))


def _worst(facts: Facts, config: ReportConfig) -> dict[str, CaseList]:
    found: dict[str, CaseList] = {}
    if facts.answers is not None and "candidate" in facts.verdicts:
        given = (facts.verdicts, facts.answers, facts.categories, config.worst)
        cases = attacks.broken(*given, redact=config.redact)
        found["broken"] = CaseList("Held-out attacks that got through", "None got through.", cases)
        cases = attacks.refused(*given, redact=config.redact)
        found["refused"] = CaseList("Harmless prompts that were refused", "None was refused.", cases)
    if facts.games is not None:
        cases = attacks.won_games(facts.games, facts.categories, config.worst, redact=config.redact)
        found["won"] = CaseList("Games that the attacker won", "The attacker won none.", cases)
    return found


def _cases(worst: Mapping[str, CaseList], key: str) -> Cases | None:
    return worst[key].cases if key in worst else None


def _by_category(facts: Facts) -> dict[Role, dict[str, Rate]]:
    """Attack success by category, the candidate's worst category first, for the models of the page."""
    if not facts.categories or "candidate" not in facts.verdicts:
        return {}
    found = {role: by_category(facts.verdicts[role], facts.categories) for role in _models(facts)}
    worst = sorted(found["candidate"], key=lambda name: (-found["candidate"][name].value, name))[:_MOST_CATEGORIES]
    return {role: {name: rates[name] for name in worst if name in rates} for role, rates in found.items()}


def _categories(facts: Facts, rates: Mapping[Role, Mapping[str, Rate]]) -> dict[str, Markup] | None:
    names = list(rates.get("candidate", {}))
    if len(names) < 2:
        return None
    models = [role for role in _models(facts) if role != "reference"]
    rows = [
        Row(name.replace("_", " "), [Dot(_name(facts, role), _COLORS[role], rates[role][name]) for role in models])
        for name in names
        if all(name in rates[role] for role in models)
    ]
    blocks = [Block("Attack success by category", "lower is better", rows)]
    return _svg(charts.chart(partial(charts.dots, blocks), "categories", "Attack success by category of the prompt."))


def _ages(facts: Facts) -> dict[str, Markup] | None:
    if facts.pool is None or not facts.pool.ages:
        return None
    label = "Success of pooled attacks against this round's defender, by their age."
    return _svg(charts.chart(partial(charts.ages, facts.pool.ages), "ages", label))


def _pool_rounds(facts: Facts, metrics: RoundMetrics) -> dict[str, Markup] | None:
    rounds = [*facts.past, metrics]
    panels = pool.panels([each.values for each in rounds])
    if not panels:
        return None
    label = f"The replay pool over {len(rounds)} rounds: use, variety, compliance and regressions caught."
    draw = partial(charts.small_multiples, panels, 1 - rounds[0].round, unit="round")
    return _svg(charts.chart(draw, "pool-rounds", label))


def _times(facts: Facts) -> dict[str, Markup] | None:
    bars = [
        Bar(step, [attempt.seconds or 0.0 for attempt in entry.attempts], entry.status != "ok")
        for step, entry in facts.steps.items()
        if entry.attempts
    ]
    if not bars:
        return None
    return _svg(
        charts.chart(partial(charts.bars, bars), "times", "Time of each step; the list below holds the same numbers.")
    )


def _history(facts: Facts, metrics: RoundMetrics) -> dict[str, Markup] | None:
    if not facts.past:
        return None
    rounds = [*facts.past, metrics]
    series = [
        (
            title,
            [
                Point(each.round, each.outcome, each.rate(key, "candidate"), each.rate(key, "champion"))
                for each in rounds
            ],
        )
        for title, key in (
            ("Attack success, mean of the slices", "asr.macro"),
            ("Over-refusal, all harmless prompts", "over_refusal.pooled"),
        )
    ]
    drawn = [(title, points) for title, points in series if any(point.candidate for point in points)]
    if not drawn:
        return None
    label = f"Attack success and over-refusal over {len(rounds)} rounds, with each round's decision."
    return _svg(charts.chart(partial(charts.history, drawn), "history", label))
