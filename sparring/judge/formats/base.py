"""What a format is: how a case is put to a judge, and how its reply is read.

Prompt and answer are data. What could be read as a control token or as a part of the template is broken before it is
sent (`neutral`), and a reply is read by label, each label from a line of its own (`labelled`); whatever does not fit
is void, and says why.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sparring.judge.protocol import Verdict
from sparring.store.canonical import canonical, sha256

MAX_REPLY = 20_000
"""Characters of a reply that are read; a longer one is void, so that reading costs a bounded time."""

_TOKEN_START = re.compile(r"[<＜](?=[|｜/!<＜A-Za-z_])|\[(?=/?[A-Z_]{2,24}\])")
_TOKEN_END = re.compile(r"[|｜](?=[>＞])")


@dataclass(frozen=True, slots=True)
class Request:
    """One call: `messages` for chat completions, or `prompt` for completions; `extra` is the endpoint's own."""

    messages: tuple[Mapping[str, str], ...] = ()
    prompt: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Format:
    """A kind of judge.

    - `source`: where the template was published.
    - `text`: everything of the template that decides, for the digest.
    - `max_tokens`: of a reply, decoded greedily.
    - `build`: from the prompt and the answer to the call; it must pass both through `neutral`.
    - `parse`: from the reply's text to a verdict. Never raises.
    - `presumes_harm`: the judge takes for granted that the prompt asks for harm. What it says of harm counts for
      nothing where the prompt is known to be benign.
    """

    name: str
    source: str
    text: str
    max_tokens: int
    build: Callable[[str, str], Request]
    parse: Callable[[str], Verdict]
    presumes_harm: bool = False

    @property
    def digest(self) -> str:
        """SHA-256 of what is asked and how it is decoded."""
        return sha256(canonical([self.name, self.text, self.max_tokens, self.presumes_harm]))


def verdict(
    *,
    prompt_harmful: bool | None = None,
    refused: bool | None = None,
    harmful: bool | None = None,
    score: int | None = None,
) -> Verdict:
    """A judged case with these labels; the others are not said."""
    return Verdict(prompt_harmful, refused, harmful, score, "ok")


def neutral(text: str, markers: re.Pattern[str] | None = None) -> str:
    """`text` as a judge's template may hold it: control tokens broken by a space, no lone surrogates, no NUL.

    `markers`: openings of lines that belong to the template or to the judge's reply; such a line is kept and set
    behind a bar, so that it stands at no line's start.
    """
    text = text.encode("utf-8", "replace").decode("utf-8").replace("\0", " ")
    text = re.sub(r"\r\n?|[\v\f\x1c-\x1e\x85\u2028\u2029]", "\n", text)
    text = _TOKEN_END.sub(lambda found: f"{found.group()} ", _TOKEN_START.sub(lambda found: f"{found.group()} ", text))
    return markers.sub(lambda found: f"| {found.group()}", text) if markers else text


def line_markers(*openings: str) -> re.Pattern[str]:
    """Matches these openings (regular expressions) at line starts, whatever their case and the marks around them."""
    return re.compile(rf"(?im)^[ \t*#>_-]{{0,12}}(?:{'|'.join(openings)})")


def filled(template: str, prompt: str, answer: str) -> str:
    """The template with `{prompt}` and `{answer}` put in at one pass: braces in either are left alone."""
    return re.sub(r"\{(prompt|answer)\}", lambda found: prompt if found[1] == "prompt" else answer, template)


def lines(reply: str) -> list[str] | None:
    """The reply's lines that are not empty, stripped; None when it is too long to be read."""
    if len(reply) > MAX_REPLY:
        return None
    return [line.strip() for line in reply.split("\n") if line.strip()]


TOO_LONG = f"the reply has more than {MAX_REPLY:,} characters"

_LABEL = re.compile(r"([A-Za-z][A-Za-z _-]{0,40}?)\s{0,4}:\s{0,4}(.{0,400})")


def labelled(reply: str, known: Sequence[str], *, strict: bool = True) -> dict[str, str] | str:
    """The reply's lines `label: value` by lower-case label, values lower-case; or why it cannot be read.

    A label may stand twice only with one value. `strict`: a line that is no known label makes the reply unreadable;
    else such lines are passed over.
    """
    found: dict[str, str] = {}
    rows = lines(reply)
    if rows is None:
        return TOO_LONG
    for row in rows:
        match = _LABEL.fullmatch(row)
        label = match[1].lower() if match else ""
        if match is None or label not in known:
            if strict:
                return "the reply holds a line that is no known label"
            continue
        value = match[2].strip().lower()
        if found.setdefault(label, value) != value:
            return f"the reply says `{label}` twice, and not the same"
    return found


def yes_no(value: str | None) -> bool | None:
    """True for yes, False for no, None for anything else."""
    return {"yes": True, "no": False}.get(value or "")


def excerpt(reply: str) -> str:
    """The opening of a reply for a reason: short, one line, printable."""
    text = " ".join(reply[:200].split())[:40]
    return "".join(c if c.isprintable() else "?" for c in text) or "nothing"
