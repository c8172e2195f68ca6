"""Several processes of one training: each samples and judges its share of a step, and all know the whole step.

What a game is does not depend on how many processes there are: a prompt's random numbers are those of its place in the
whole list (`generate(..., skip=...)`). With one process nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed as dist

from sparring.errors import SetupError
from sparring.judge.protocol import Judge, JudgeCase, Verdict
from sparring.policy.generate import Sampled, generate

T = TypeVar("T")


def world() -> tuple[int, int]:
    """This process' rank and how many there are."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def check_world(asked: int, running: int) -> None:
    """Raises SetupError when not as many processes train as the run file asks for."""
    if asked != running:
        raise SetupError(
            f"selfplay.processes = {asked}, but {running} process{'es train' if running > 1 else ' trains'}",
            hint=f"start with torchrun --nproc_per_node {asked}: accelerate launch --cpu quietly runs one",
        )


def share(items: Sequence[T], rank: int, size: int) -> tuple[Sequence[T], int]:
    """The `rank`-th of `size` nearly equal, consecutive parts, and where it begins.

    >>> [share("abcde", rank, 2) for rank in range(2)]
    [('ab', 0), ('cde', 2)]
    """
    start, end = len(items) * rank // size, len(items) * (rank + 1) // size
    return items[start:end], start


def over_ranks(prompts: Sequence[T], sample: Callable[[Sequence[T], int], Sampled]) -> Sampled:
    """`sample(part, skip)` of each process' share of the prompts, put together again on every process."""
    rank, size = world()
    if size == 1:
        return sample(prompts, 0)
    part, start = share(prompts, rank, size)
    mine = sample(part, start)  # also when it is empty: with a server all processes ask together
    found = _all((mine.ids, mine.logprobs), size)
    return Sampled([row for ids, _ in found for row in ids], [row for _, values in found for row in values])


def generate_over_ranks(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    eos: frozenset[int],
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> Sampled:
    """`sparring.policy.generate.generate`, shared between the processes."""

    def sample(part: Sequence[Sequence[int]], skip: int) -> Sampled:
        return generate(
            model, part, eos=eos, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, skip=skip
        )

    return over_ranks(prompts, sample)


@dataclass(frozen=True)
class SharedJudge:
    """A judge whose cases the processes share between them: an endpoint is asked once for each."""

    inner: Judge

    @property
    def id(self) -> str:
        """The inner judge's."""
        return self.inner.id

    def judge(self, cases: Sequence[JudgeCase]) -> list[Verdict]:
        """See `Judge`."""
        rank, size = world()
        if size == 1:
            return self.inner.judge(cases)
        part, _ = share(cases, rank, size)
        mine = self.inner.judge(part) if part else []
        return [verdict for found in _all(mine, size) for verdict in found]


def the_firsts(value: T) -> T:
    """The first process' value, on every process: what each drew for itself may differ (an endpoint that timed out)."""
    _, size = world()
    return value if size == 1 else _all(value, size)[0]


def padded(rows: dict[str, list[Any]], multiple: int) -> dict[str, list[Any]]:
    """Rows filled up to a multiple with copies of the last that carry no loss, so that each process has as many."""
    missing = -len(rows["valid"]) % multiple
    filled = {name: [*column, *column[-1:] * missing] for name, column in rows.items()}
    for i in range(len(rows["valid"]), len(filled["valid"])):
        filled["valid"][i], filled["env_mask"][i] = 0, [0] * len(filled["env_mask"][i])
    return filled


def mine(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """This process' consecutive part of a step's rows."""
    rank, size = world()
    return {name: list(share(column, rank, size)[0]) for name, column in rows.items()}


def _all(value: T, size: int) -> list[T]:
    found: list[Any] = [None] * size
    dist.all_gather_object(found, value)
    return found
