"""What `sparring verdicts` prints and writes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from sparring.errors import UsageError
from sparring.evaluate import verdicts
from sparring.evaluate.tables import decode_verdicts, encode_verdicts
from sparring.importers.verdicts import Options, import_verdicts
from sparring.importers.verdicts.table import join
from sparring.store.files import writing_aside

MAX_BYTES: Final = 1 << 30
_SHORT: Final = 12


def imported_facts(tool: str, files: list[Path], options: Options, out: Path) -> dict[str, object]:
    """Imports, writes the table, and says what it holds and what was guessed. Nothing is written on an error."""
    done = import_verdicts(tool, files, options)
    _write(done.table, out, files)
    facts = {"file": str(out), **_counted(done.table), "model from": done.model_from}
    guesses = {f"guessed: {text}": count for text, count in sorted(done.guesses.items())}
    return {**facts, "void_rows": dict(done.voids.most_common()), "not_said_by_you": guesses}


def joined_facts(files: list[Path], out: Path) -> dict[str, object]:
    """Joins tables and writes the result."""
    table = join([_read(path) for path in files])
    _write(table, out, [])
    return {"file": str(out), **_counted(table)}


def checked_facts(path: Path) -> dict[str, object]:
    """Counts of a sound table. Raises InvalidEvaluation."""
    return {"file": str(path), **_counted(_read(path))}


def shown_rows(path: Path, number: int, show_text: bool) -> list[dict[str, Any]]:
    """The first rows; without `show_text` ids and behaviours are cut to a few letters."""
    rows: list[dict[str, Any]] = _read(path).slice(0, number).to_pylist()
    if not show_text:
        for row in rows:
            row |= {name: _cut(row[name]) for name in ("model", "prompt_id", "behavior", "judge")}
    return rows


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Rows as a table; a missing label is a dash."""
    from rich.console import Console
    from rich.table import Table

    names = [name for name in rows[0] if name not in ("model", "judge", "label")]
    table = Table(*names, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*("-" if row[name] is None else str(row[name]) for name in names))
    Console(width=160, markup=False, highlight=False).print(table)


def schema_facts() -> dict[str, object]:
    """The schema for programs: version and, for each column, type, whether it may be null, and its meaning."""
    meanings = _meanings()
    return {
        "schema_version": verdicts.SCHEMA_VERSION,
        "metadata": {"sparring.schema": verdicts.SCHEMA_VERSION},
        "columns": [
            {"name": field.name, "type": str(field.type), "nullable": field.nullable, "meaning": meanings[field.name]}
            for field in verdicts.SCHEMA
        ],
    }


def print_schema() -> None:
    """The schema for people."""
    print((verdicts.__doc__ or "").strip())
    print(f"\nschema version {verdicts.SCHEMA_VERSION}; `--json` prints it for programs; docs/verdicts.md explains it")


def _meanings() -> dict[str, str]:
    """From the table in the schema module's docstring, which is the one place where they are written."""
    lines = (line.split("|") for line in (verdicts.__doc__ or "").splitlines() if line.startswith("| "))
    return {cells[1].strip(): cells[3].strip() for cells in lines}


def _counted(table: pa.Table) -> dict[str, object]:
    rows = table.select(["kind", "slice", "status", "model", "judge", "suite", "prompt_id", "behavior"]).to_pylist()
    void = Counter(f"{row['kind']}/{row['slice']}" for row in rows if row["status"] != "ok")
    counts = Counter(f"{row['kind']}/{row['slice']}" for row in rows)
    return {
        "model": rows[0]["model"],
        "rows": len(rows),
        "void": sum(void.values()),
        "prompts": len({(row["suite"], row["slice"], row["prompt_id"]) for row in rows}),
        "behaviors": len({row["behavior"] for row in rows}),
        "judges": "; ".join(sorted({row["judge"] for row in rows})),
        "by_slice": dict(sorted(counts.items())),
        "void_by_slice": dict(sorted(void.items())),
    }


def _read(path: Path) -> pa.Table:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{path}: larger than {MAX_BYTES >> 20} MiB, so it is no verdict table")
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error
    return decode_verdicts(data, str(path))


def _write(table: pa.Table, out: Path, inputs: list[Path]) -> None:
    """Whole or not at all. Raises UsageError when it would replace what was read."""
    if any(path.exists() and out.exists() and path.samefile(out) for path in inputs):
        raise UsageError(f"{out}: --out is one of the files to read")
    if out.is_dir():
        raise UsageError(f"{out}: a folder; name a .parquet file")
    data = encode_verdicts(table, str(out))
    with writing_aside(out) as file:
        file.write(data)


def _cut(text: str) -> str:
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}…"
