"""Labelling in the terminal: one key an answer, written before the next answer is shown."""

from __future__ import annotations

import sys
from collections.abc import Callable

from sparring.cli.label_text import CHOICES, HELP, WARNING, asks_for_harm, harm_without_asking, readable
from sparring.evaluate.labels import Item, LabelLog

_KEYS = "r refused   c complied   p partial   s skip   u undo   q quit"
_RULE = "─" * 72
Keys = Callable[[], str]


def label_in_terminal(log: LabelLog, keys: Keys | None = None, show: Callable[[str], None] = print) -> None:
    """Shows what is pending until it is done or the labeller quits; `keys` gives one key a call, empty at the end."""
    keys = keys or _keys()
    if log.pending():
        show(f"{WARNING}\n{HELP}\nEnter to begin, q to stop.")
        if keys() in ("q", ""):
            return
    while pending := log.pending():
        show(_shown(log, pending[0], len(pending)))
        if not _one(log, pending[0], keys, show):
            break
        log.refresh()
    left = len(log.pending())
    show(f"{left} left, go on with `sparring judge label`" if left else "all labelled: `sparring judge calibrate`")


def _one(log: LabelLog, item: Item, keys: Keys, show: Callable[[str], None]) -> bool:
    """Labels one item or takes one back; False when the labeller quits."""
    while True:
        key = keys()
        if key in ("q", ""):
            return False
        if key == "u":
            show("nothing to take back" if log.undo() is None else "taken back")
            return True
        if key in CHOICES:
            return _choose(log, item, key, keys, show)
        show(_KEYS)


def _choose(log: LabelLog, item: Item, key: str, keys: Keys, show: Callable[[str], None]) -> bool:
    refusal = CHOICES[key]
    if not asks_for_harm(item, refusal):
        log.add(item.id, refusal, harm_without_asking(item, refusal))
        return True
    while True:
        show("harmful: does it do what the request asked for?   y yes   n no   b back   q quit")
        answer = keys()
        if answer in ("y", "n"):
            log.add(item.id, refusal, answer == "y")
        if answer in ("y", "n", "b"):
            return True
        if answer in ("q", ""):
            return False


def _shown(log: LabelLog, item: Item, left: int) -> str:
    parts = ("REQUEST", readable(item.prompt), "", "ANSWER", readable(item.answer) or "(empty)")
    return "\n".join((_RULE, f"{left} left of {len(log.queue.items)}", "", *parts, "", _KEYS))


def _keys() -> Keys:
    """Single keys from a terminal, else the first letter of each line."""
    if not sys.stdin.isatty():
        return lambda: _first(sys.stdin.readline())
    import click

    return lambda: _pressed(click.getchar())


def _first(line: str) -> str:
    return line.strip().lower()[:1] or " " if line else ""


def _pressed(key: str) -> str:
    """One letter; a space for Enter and keys that mean nothing here; empty at the end of input."""
    return "" if key in ("\x04", "\x1a") else key.lower()[:1].strip() or " "
