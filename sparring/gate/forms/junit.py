"""The JUnit XML form: one test case an endpoint or limit, as CI systems show it.

Status pass is a passed case, fail a failure, open an error (nothing is shown: a build must not be green). For INVALID
each missing thing is an error. Whatever else holds a candidate back (α spent, an approval) is an error of the case
`decision`, so that the suite is green exactly for PROMOTE.
"""

from __future__ import annotations

from xml.etree import ElementTree

from sparring.gate.forms.rows import Row, clean, notes, rows
from sparring.gate.outcome import Decision, Endpoint


def junit(decision: Decision) -> str:
    """A whole XML document, UTF-8."""
    suite = ElementTree.Element("testsuite", name="sparring gate", time="0")
    for row in rows(decision):
        _case(suite, row)
    _decision(suite, decision)
    for index, text in enumerate(decision.missing, start=1):
        _bad(_testcase(suite, f"missing {index}"), "error", "missing", text)
    output = ElementTree.SubElement(suite, "system-out")
    output.text = "\n".join([clean(decision.reason), *(f"{kind}: {text}" for kind, text in notes(decision))])
    counts = {
        "tests": len(suite.findall("testcase")),
        "failures": len(suite.findall("testcase/failure")),
        "errors": len(suite.findall("testcase/error")),
        "skipped": 0,
    }
    root = ElementTree.Element("testsuites")
    for name, count in counts.items():
        suite.set(name, str(count))
        if name != "skipped":
            root.set(name, str(count))
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _case(suite: ElementTree.Element, row: Row) -> None:
    test = row.endpoint
    case = _testcase(suite, test.name + (f" against {test.against}" if test.against else ""))
    if test.status != "pass":
        kind = "failure" if test.status == "fail" else "error"
        _bad(case, kind, _kind(test), test.text)


def _kind(test: Endpoint) -> str:
    return "not shown" if test.status == "open" else test.test


def _decision(suite: ElementTree.Element, decision: Decision) -> None:
    """The case that says what the tests together came to."""
    case = _testcase(suite, "decision")
    tests = {test.status for test in decision.endpoints}
    if decision.outcome == "REJECT" and "fail" not in tests:
        _bad(case, "failure", "REJECT", decision.reason)
    elif decision.outcome == "INVALID" or (decision.outcome == "INCONCLUSIVE" and "open" not in tests):
        _bad(case, "error", decision.outcome, decision.reason)


def _testcase(suite: ElementTree.Element, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname="sparring.gate", name=clean(name), time="0")


def _bad(case: ElementTree.Element, kind: str, cause: str, text: str) -> None:
    ElementTree.SubElement(case, kind, type=cause, message=clean(text)).text = clean(text)
