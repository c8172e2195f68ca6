"""Hidden chain of thought ([SR], section 3): the form of a completion, and its parser, which fails closed.

The opening `<think>` stands before the completion already; what follows must be

    thought</think> <answer>answer</answer>

with exactly one of each tag, only white space between `</think>` and `<answer>` and around the whole, and both parts
non-empty. Only the answer is ever passed on: to the opponent, the judge, the pool and the reader of a transcript.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

OPEN: Final = "<think>"
CLOSE: Final = "</think>"
ANSWER: Final = "<answer>"
END: Final = "</answer>"
TAGS: Final = (OPEN, CLOSE, ANSWER, END)


@dataclass(frozen=True)
class Thought:
    """A completion that kept the form: what was thought, in private, and what is passed on."""

    private: str
    answer: str


def parse(completion: str) -> Thought | None:
    """The parts of a completion behind a prefilled `<think>`, stripped; None when it broke the form. Linear time.

    >>> parse("harmless, I help</think>\\n<answer>Boil it for 7 minutes.</answer>")
    Thought(private='harmless, I help', answer='Boil it for 7 minutes.')
    >>> parse("I help</think> Sure: <answer>Boil it.</answer>")
    """
    if OPEN in completion or any(completion.count(tag) != 1 for tag in (CLOSE, ANSWER, END)):
        return None
    private, _, rest = completion.partition(CLOSE)
    between, _, rest = rest.partition(ANSWER)
    answer, closed, behind = rest.partition(END)
    if between.strip() or not closed or behind.strip():
        return None
    found = Thought(private.strip(), answer.strip())
    return found if found.private and found.answer else None


def compose(private: str, answer: str) -> str:
    """The completion behind a prefilled `<think>` that says this.

    >>> parse(compose("hm", "Yes."))
    Thought(private='hm', answer='Yes.')
    """
    return f"{private}{CLOSE}\n{ANSWER}{answer}{END}"


def shown(chunks: Iterable[str]) -> Iterator[str]:
    """What may be shown of a streamed completion: the answer, once the whole has kept the form; else nothing.

    Whether the form is kept is known at the end alone: a second `</think>` may yet turn what looked like an answer
    into thought. So nothing is shown before the end.
    """
    found = parse("".join(chunks))
    if found:
        yield found.answer
