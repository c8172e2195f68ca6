"""Verdict tables from other tools' results, one tool a file: `IMPORTERS[name](path, mapping)` finds the answers,
`table.build` makes the table of one model of them. Nothing but the named files and their siblings is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from sparring.importers.verdicts.base import Found
from sparring.importers.verdicts.garak import read_garak
from sparring.importers.verdicts.harmbench import read_harmbench
from sparring.importers.verdicts.inspect_log import read_inspect
from sparring.importers.verdicts.lm_eval import read_lm_eval
from sparring.importers.verdicts.mapping import MappingFile, load_mapping
from sparring.importers.verdicts.table import Imported, Options, build

IMPORTERS: Final[Mapping[str, Callable[[Path, MappingFile], Found]]] = {
    "garak": read_garak,
    "harmbench": read_harmbench,
    "inspect": read_inspect,
    "lm-eval": read_lm_eval,
}
"""By the tool's name. Each raises DataError naming file, row and field."""

__all__ = ["IMPORTERS", "Imported", "MappingFile", "Options", "import_verdicts", "load_mapping"]


def import_verdicts(tool: str, paths: Sequence[Path], options: Options) -> Imported:
    """The verdict table of one model from one tool's files. Raises DataError and InvalidEvaluation."""
    return build([IMPORTERS[tool](path, options.mapping) for path in paths], options)
