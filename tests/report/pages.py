"""Helpers of the page's tests: a line with rounds, its page, and a strict HTML5 parser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sparring.config.run import ReportConfig
from sparring.progress import Progress
from sparring.steps import report
from sparring.store.base import Store
from sparring.store.local import LocalStore
from tests.report.world import BASE, FIRST, SECOND, Model, Plan, model, play

WORSE = model("worse", 0.09, 0.19, 0.60)
NAMES = {each.name: each for each in (BASE, FIRST, SECOND, WORSE)}


def line(folder: Path, *plans: Plan) -> LocalStore:
    """A line's store with one round a plan."""
    store = LocalStore(folder).scope("lines/default")
    known: dict[str, Model] = dict(NAMES)
    for number, plan in enumerate(plans, start=1):
        play(store, number, plan, known)
    return store


def page(store: Store, number: int | None = None, **config: object) -> str:
    """The HTML of a round's page, written by the step."""
    settings = ReportConfig.model_validate({"worst": 6, **config})
    result = report.run(settings, store, report.ReportInputs(number), Progress("report"))
    return store.get(result.html_key).decode("utf-8")


def parse(html: str) -> Any:
    """The document as an ElementTree without namespaces; any parse error of HTML5 fails the test."""
    html5lib = pytest.importorskip("html5lib", reason="no html5lib: install the dev extra")
    document = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(html)
    for element in document.iter():
        if isinstance(element.tag, str):
            element.tag = element.tag.rpartition("}")[2]  # SVG keeps its namespace
    return document


def words(element: Any) -> str:
    """All text of an element, with white space as one blank."""
    return " ".join("".join(element.itertext()).split())
