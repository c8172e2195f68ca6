"""What the benchmarks of the engine share: model, prompts, Hugging Face's side, taking turns, ratios, the result."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

RESULTS = Path(__file__).parent / "results"
SEED = 4
HEADER, ROLE, TAIL = 24, 48, 6
"""Tokens of the chat header with its system prompt, of the attacker's role prompt, of the assistant's header."""
VOCABULARY = 49_152
PAD = 2


def model_folder(quick: bool) -> Path:
    """The packaged SmolLM2-135M as safetensors, kept in the user's cache; for `quick` its shape with three layers."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from sparring.policy.packaged import export_packaged, packaged_file

    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparring" / "benchmarks"
    folder /= "small" if quick else "smollm2-135m"
    if (folder / "done").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    if quick:
        torch.manual_seed(SEED)
        heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "num_hidden_layers": 3}
        shape = {"vocab_size": VOCABULARY, "hidden_size": 576, "intermediate_size": 1536, "tie_word_embeddings": True}
        LlamaForCausalLM(LlamaConfig(**shape, **heads, eos_token_id=PAD, pad_token_id=PAD)).save_pretrained(folder)
        gguf = packaged_file()
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    else:
        export_packaged(folder)
    (folder / "done").touch()
    return folder


def load(folder: Path) -> Any:
    """The model in float32, in evaluation mode."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


class Prompts:
    """Random tokens in the shape of the games' prompts; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        fixed = random.Random(SEED)
        self.header, self.role, self.tail = (_tokens(fixed, n) for n in (HEADER, ROLE, TAIL))

    def user(self, least: int, most: int) -> list[int]:
        """A user's turn of `least` to `most` tokens of its own, in its chat frame."""
        return [*self.header, *_tokens(self._rng, self._rng.randint(least, most)), *self.tail]

    def attacker(self, least: int, most: int) -> list[int]:
        """The same behind the attacker's role prompt."""
        own = _tokens(self._rng, self._rng.randint(least, most))
        return [*self.header, *self.role, *own, *self.tail]

    def answer(self, attack: Sequence[int]) -> list[int]:
        """What the defender is asked for an attack."""
        return [*self.header, *attack, *self.tail]

    def lengths(self, rows: int, least: int, most: int) -> list[int]:
        """Forced lengths: where each row's answer ends."""
        return [self._rng.randint(least, most) for _ in range(rows)]


def _tokens(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(100, VOCABULARY) for _ in range(count)]


def left_padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids and mask (B, T), padded at the left."""
    width = max(map(len, rows))
    ids = torch.tensor([[PAD] * (width - len(row)) + list(row) for row in rows])
    return ids, torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])


def right_padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids and mask (B, T), padded at the right."""
    width = max(map(len, rows))
    ids = torch.tensor([list(row) + [PAD] * (width - len(row)) for row in rows])
    return ids, torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])


def hf_generate(
    model: Any, prompts: Sequence[Sequence[int]], lengths: Sequence[int], cache: str, *, greedy: bool = False
) -> list[list[int]]:
    """`model.generate` in one batch; each row ends at its forced length as it would at an end-of-turn token."""
    from transformers import StoppingCriteria, StoppingCriteriaList

    ids, mask = left_padded(prompts)
    ends = torch.tensor(lengths) + ids.shape[1]

    class AtLength(StoppingCriteria):
        def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Any:
            return ends <= input_ids.shape[1]

    with torch.inference_mode():
        found = model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=max(lengths),
            do_sample=not greedy,
            temperature=None if greedy else 1.0,
            top_k=None if greedy else 0,
            top_p=None if greedy else 1.0,
            eos_token_id=None,
            pad_token_id=PAD,
            stopping_criteria=StoppingCriteriaList([AtLength()]),
            cache_implementation=None if cache == "dynamic" else cache,
        )
    rows = found[:, ids.shape[1] :].tolist()
    return [row[:n] for row, n in zip(rows, lengths, strict=True)]


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock and CPU time (all threads) of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def take_turns(sides: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Times of each side, one after the other, `repeats` times; one unmeasured turn before."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for turn in range(repeats + 1):
        for name, work in sides.items():
            spent = seconds(work)
            if turn:
                times[name].append(spent)
    return times


def compare(peer: Sequence[tuple[float, float]], ours: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Median of the ratios of each turn (peer over ours), its quartiles, and the same in CPU time."""
    turns = np.array([[p[i] / o[i] for i in (0, 1)] for p, o in zip(peer, ours, strict=True)])
    low, middle, high = np.quantile(turns, (0.25, 0.5, 0.75), axis=0)
    return {
        "ratio": round(float(middle[0]), 2),
        "spread": [round(float(low[0]), 2), round(float(high[0]), 2)],
        "ratio_cpu": round(float(middle[1]), 2),
        "n": len(turns),
        "peer_s": round(float(np.median([p[0] for p in peer])), 3),
        "ours_s": round(float(np.median([o[0] for o in ours])), 3),
    }


def finish(result: dict[str, Any], *, quick: bool) -> dict[str, Any]:
    """Adds machine, versions and seed; writes `results/NAME.json` unless `quick`; prints the JSON line."""
    names = ("torch", "transformers", "trl")
    result |= {
        "seed": SEED,
        "quick": quick,
        "threads": torch.get_num_threads(),
        "cpu": f"{_cpu()}, {torch.backends.cpu.get_cpu_capability()}",
        "load": round(os.getloadavg()[0], 1),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in names}},
    }
    if not quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{result['bench']}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))
    return result


def _cpu() -> str:
    """The processor's name; MKL is fast on one maker's only."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    found = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(found, platform.processor() or platform.machine())


def parse(doc: str, quick: str, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line of one benchmark."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=quick)
    return parser.parse_args(arguments)
