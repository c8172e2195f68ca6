"""What models, users and attackers wrote is hostile: it must not act in the page, nor be in a redacted one."""

from __future__ import annotations

import html as escaping
from pathlib import Path

import pytest

from tests.report.pages import line, page, parse, words
from tests.report.world import FIRST, Plan, Texts

ATTACKS = [
    "</style></script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg/onload=alert(1)>',
    "</td></table></details><iframe src=javascript:alert(1)></iframe>",
    "{{ 7 * 7 }} {% raw %} ${7*7} <!-- --> ]]> <![CDATA[",
    "&lt;script&gt; &#x3c;b&#x3e; &amp;quot;",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    "\x00\x08\x0b\x1b[31m \u202egnirts\u2066 \ufeff \u200b \ufffe end",
    "<a href='https://evil.example/'>x</a> http://evil.example/a.png",
    "$\\frac{1}{2}$ \\write18 %s %(x)s {n!r}",
]


def _plan(short: str) -> Plan:
    hostile = " ".join(ATTACKS)
    texts = Texts(attack=f"{hostile} {{n}}", answer=hostile, error=f"Fault: {short}", category=short)
    return Plan(FIRST, until="judge", texts=texts)


@pytest.mark.parametrize("first", [0, 7])
def test_hostile_texts_are_shown_and_do_nothing(first: int, tmp_path: Path) -> None:
    """Alone where texts are short (slice, category, error), all at once where they are long."""
    html = page(line(tmp_path, _plan(ATTACKS[first])), redact=False)
    document = parse(html)
    allowed = {"html", "head", "meta", "title", "link", "style", "body", "header", "main", "footer", "section", "nav"}
    allowed |= {"div", "span", "p", "h1", "h2", "h3", "a", "b", "br", "ul", "li", "dl", "dt", "dd", "code", "figure"}
    allowed |= {"table", "thead", "tbody", "tr", "th", "td", "details", "summary"}
    allowed |= {"svg", "g", "path", "text", "defs", "use", "clipPath", "rect", "tspan"}
    assert {element.tag for element in document.iter() if isinstance(element.tag, str)} <= allowed
    assert not any(name.startswith("on") for element in document.iter() for name in element.attrib)
    assert all(link.get("href", "").startswith("#") for link in document.iter("a"))
    shown = words(document)
    for text in ATTACKS:
        assert not text.isprintable() or " ".join(text.split()) in shown


def test_a_redacted_page_holds_no_text_of_an_attack_or_answer(tmp_path: Path) -> None:
    hostile = " ".join(ATTACKS)
    texts = Texts(
        attack=f"secret attack {hostile} {{n}}",
        answer=f"secret answer {hostile}",
        error=f"row 3: secret answer {hostile}",
    )
    html = page(line(tmp_path, Plan(FIRST, until="judge", texts=texts)))
    assert "secret" not in html
    for text in ATTACKS:
        assert text not in html
        assert escaping.escape(text) not in html
    document = parse(html)
    assert "[redacted]" in words(document.find(".//ul[@class='reasons']"))
    assert len(document.findall(".//table[@class='cases']//code")) > 6


def test_the_switch_shows_the_texts(tmp_path: Path) -> None:
    store = line(tmp_path, Plan(FIRST, texts=Texts(attack="the attack {n}", answer="the answer of {n}")))
    assert "the answer of" not in page(store, 1)
    shown = page(store, 1, redact=False)
    assert "the answer of" in shown
    assert "This page holds harmful texts" in shown


def test_a_very_long_text_is_cut_and_says_so(tmp_path: Path) -> None:
    html = page(line(tmp_path, Plan(FIRST, texts=Texts(answer="a" * 50_000))), redact=False)
    assert len(html) < 500_000
    assert "48,500 more characters" in html
