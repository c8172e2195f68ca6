"""How near the starter set's training texts come to public evaluation files.

    python -m sparring.data.neighbours FOLDER [FOLDER or FILE …]

prints the nearest pairs and exits with 0 when no training text reaches a cosine of 0.8 to a public prompt and none
shares eight consecutive words with one, else with 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sparring.data import starter
from sparring.data.card import nearest_statistics
from sparring.data.hygiene import nearest, shared_ngrams
from sparring.data.load import data_files, load_prompts
from sparring.embedding import Vectors, default_embedder
from sparring.errors import SparringError

COSINE: Final = 0.8
NGRAM: Final = 8
_MAX_CHARS: Final = 1_000_000
_SHOWN: Final = 10


@dataclass(frozen=True)
class Neighbour:
    """A training text and the public prompt nearest to it. `shared`: a public prompt that shares a run of words."""

    id: str
    text: str
    cosine: float
    public: str
    file: str
    shared: str | None

    @property
    def too_near(self) -> bool:
        """Whether the rule is broken."""
        return self.cosine >= COSINE or self.shared is not None


def training_texts() -> list[tuple[str, str]]:
    """Id and text of everything in the starter set that a model is trained on and that is a prompt."""
    rows = [(seed.id, seed.text) for seed in starter.seeds("train")]
    return rows + [(row.id, row.prompt) for row in starter.demonstrations()]


def public_texts(paths: Sequence[str]) -> dict[str, str]:
    """Prompt → file, for every prompt, adversarial phrasing and plain intent in `paths`. Raises DataError."""
    found: dict[str, str] = {}
    for path in paths:
        with data_files(path) as files:
            for name, file in files:
                for adversarial in (False, True):
                    for row in load_prompts(str(file), adversarial=adversarial, max_chars=_MAX_CHARS):
                        found.setdefault(row.prompt, str(name))
                        found.setdefault(row.intent, str(name))
    return found


def neighbours(
    training: Sequence[tuple[str, str]], public: dict[str, str], embed: Callable[[Sequence[str]], Vectors]
) -> list[Neighbour]:
    """Each training text with its nearest public prompt, nearest first. `public` must not be empty."""
    texts, others = [text for _, text in training], list(public)
    index, cosine = nearest(embed(texts), embed(others))
    shared = shared_ngrams(texts, others, NGRAM)
    rows = [
        Neighbour(
            name, text, float(cosine[i]), others[index[i]], public[others[index[i]]], _shared(shared.get(i), others)
        )
        for i, (name, text) in enumerate(training)
    ]
    return sorted(rows, key=lambda row: -row.cosine)


def report(rows: Sequence[Neighbour], public: int) -> str:
    """The nearest pairs, every pair that breaks the rule, and a summary line."""
    shown = [row for place, row in enumerate(rows) if place < _SHOWN or row.too_near]
    broken = sum(row.too_near for row in rows)
    numbers = ", ".join(f"{name} {value:.3f}" for name, value in nearest_statistics([r.cosine for r in rows]).items())
    summary = f"{len(rows)} training texts, {public} public prompts: nearest cosine {numbers}; {broken} too near"
    return "\n".join([*(_line(row) for row in shown), summary])


def main(arguments: Sequence[str]) -> int:
    """The command. 0: none too near, 1: some are, 2: unreadable files."""
    parser = argparse.ArgumentParser(
        prog="python -m sparring.data.neighbours", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="folder or file of public prompts")
    paths = [str(Path(path)) for path in parser.parse_args(arguments).paths]
    try:
        public = public_texts(paths)
        rows = neighbours(training_texts(), public, default_embedder().embed)
    except SparringError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(report(rows, len(public)))
    return int(any(row.too_near for row in rows))


def _shared(index: int | None, others: Sequence[str]) -> str | None:
    return None if index is None else others[index]


def _line(row: Neighbour) -> str:
    mark = "TOO NEAR" if row.too_near else ""
    words = f" shares {NGRAM} words with {_short(row.shared)}" if row.shared else ""
    return f"{row.cosine:.3f} {row.id} {_short(row.text)} ~ {row.file}: {_short(row.public)}{words} {mark}".rstrip()


def _short(text: str) -> str:
    return repr(text if len(text) <= 70 else text[:67] + "...")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
