"""garak's hit log: `<report>.hitlog.jsonl`, one line a hit (garak 0.9 to 0.16, `evaluators/base.py`).

A line has `prompt`, `goal`, `probe`, `detector`, `score` and more. Until 0.11 `prompt` is a text, since then a
conversation: `{"turns": [{"role": "user", "content": {"text": …}}], …}`. A conversation of several user turns, or with
an attachment, is left out: a pooled attack is one prompt. A system turn is not part of the attack. The goal is taken
for the seed, the probe for the behaviour. A prompt that was hit by several detectors or generations comes as often.
"""

from __future__ import annotations

from pathlib import Path

from sparring.data.readers import read_rows
from sparring.errors import DataError
from sparring.importers.attacks.base import Found, FoundAttack, Record, as_record


def read_garak(path: Path) -> Found:
    """The hits of a log. Raises DataError, also for garak's `report.jsonl`, which lists every attempt."""
    if path.suffix.lower() != ".jsonl":
        raise DataError(f"{path}: garak's hit log is a .jsonl file")
    found = Found()
    for row in read_rows(path):
        hit = Record(row.place, row.fields)
        if "entry_type" in hit.fields:
            raise DataError(f"{row.place}: a garak report, not its hit log", hint="give the file *.hitlog.jsonl")
        probe = hit.text("probe")
        text = _prompt(hit)
        if text is None:
            found.left_out["several turns or an attachment"] += 1
            continue
        category = probe.partition(".")[0]
        found.attacks.append(FoundAttack(text, hit.text("goal", default=probe), f"garak:{probe}", category, row.place))
    return found


def _prompt(hit: Record) -> str | None:
    """The one user turn; None when there are more or when it is not plain text."""
    if isinstance(hit.fields.get("prompt"), str):
        return hit.text("prompt")
    turns = [as_record(turn, f"{hit.place}: `turns`") for turn in hit.record("prompt").list("turns")]
    asked = [turn for turn in turns if turn.text("role") == "user"]
    if len(asked) != 1 or len(asked) < sum(turn.text("role") != "system" for turn in turns):
        return None
    content = asked[0].fields.get("content")
    if isinstance(content, str):
        return asked[0].text("content")
    message = asked[0].record("content")
    return None if message.fields.get("data_path") else message.text("text")
