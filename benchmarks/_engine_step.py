"""One whole training step: games sampled, log-probabilities, reference, backward, optimizer; by TRL alone or by us.

As a program it does one step and prints its seconds and the peak memory of its process (`benchmarks memory`).
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks._engine import SEED, Prompts, hf_generate, model_folder

GROUP = 4
LEAST, MOST = 4, 24
"""Forced lengths of attacks and answers, in tokens."""
KINDS = ("trl", "ours", "defender-only")
Sample = Callable[[Any, list[list[int]], list[int]], tuple[list[list[int]], list[list[float]]]]


def one_step(kind: str, folder: Path, rows: int, *, cache: str = "dynamic") -> float:
    """Seconds of one step of `rows` rows, from before its games to behind its optimizer."""
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import GRPOTrainer

    from sparring.train.trainer import Features, SelfPlayTrainer

    class Clock(TrainerCallback):
        spent = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.spent = -time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.spent += time.perf_counter()

    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func's warning: the version is pinned
    clock, sample = Clock(), _theirs(cache) if kind == "trl" else _ours
    ours: dict[str, Any] = {} if kind == "trl" else {"features": Features(kl=0.02)}
    with tempfile.TemporaryDirectory() as work:
        trainer = (GRPOTrainer if kind == "trl" else SelfPlayTrainer)(
            model=str(folder),
            reward_funcs=_score,
            args=_settings(work, rows),
            train_dataset=Dataset.from_list([{"prompt": str(i)} for i in range(rows // GROUP)]),
            rollout_func=lambda _, trainer: _games(trainer.model, sample, rows, attackers=kind != "defender-only"),
            callbacks=[clock],
            **ours,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return clock.spent


def _settings(work: str, rows: int) -> Any:
    from trl import GRPOConfig

    return GRPOConfig(
        output_dir=work,
        max_steps=1,
        per_device_train_batch_size=rows // 2,
        gradient_accumulation_steps=2,
        num_generations=GROUP,
        max_completion_length=MOST,
        shuffle_dataset=False,
        learning_rate=1e-6,
        beta=0.02,
        bf16=False,
        gradient_checkpointing=False,
        disable_dropout=True,
        model_init_kwargs={"dtype": "float32"},
        dataloader_pin_memory=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=SEED,
    )


def _score(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
    """Some reward with spread: what it is costs nothing on either side."""
    return [float(sum(ids) % 7) for ids in completion_ids]


def _games(model: Any, sample: Sample, rows: int, *, attackers: bool) -> dict[str, list[Any]]:
    """Rows of a step: half attacks, half answers to one attack of each group; or answers to given attacks alone."""
    prompts = Prompts(SEED)
    lengths = prompts.lengths(rows, LEAST, MOST)
    if attackers:
        half = rows // 2
        asked = [p for p in (prompts.attacker(8, 40) for _ in range(half // GROUP)) for _ in range(GROUP)]
        attacks, first = sample(model, asked, lengths[:half])
        answered = [prompts.answer(attacks[i - i % GROUP]) for i in range(half)]
        answers, second = sample(model, answered, lengths[half:])
        rows_of = asked + answered, attacks + answers, first + second
    else:
        asked = [p for p in (prompts.user(LEAST, MOST) for _ in range(rows // GROUP)) for _ in range(GROUP)]
        rows_of = asked, *sample(model, asked, lengths)
    role = [int(not attackers or row >= rows // 2) for row in range(rows)]
    return {
        **dict(zip(("prompt_ids", "completion_ids", "logprobs"), rows_of, strict=True)),
        "env_mask": [[1] * len(ids) for ids in rows_of[1]],
        "role": role,
        "score": _score(rows_of[1]),
        "valid": [1] * rows,
        "slot": [row // GROUP for row in range(rows)],
    }


def _ours(model: Any, prompts: list[list[int]], lengths: list[int]) -> tuple[list[list[int]], list[list[float]]]:
    from sparring.policy.generate import generate

    found = generate(model, prompts, eos=frozenset(), max_new_tokens=lengths, temperature=1.0, seed=SEED)
    return found.ids, found.logprobs


def _theirs(cache: str) -> Sample:
    def sample(model: Any, prompts: list[list[int]], lengths: list[int]) -> Any:
        ids = hf_generate(model, prompts, lengths, cache)
        return ids, [[0.0] * len(row) for row in ids]  # stock TRL does not read them

    return sample


if __name__ == "__main__":
    asked_kind, asked_rows, quick = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "quick"
    spent = one_step(asked_kind, model_folder(quick), asked_rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": round(spent, 2), "peak_gib": round(peak, 3)}))
