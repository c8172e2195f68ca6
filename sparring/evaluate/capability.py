"""How capability is scored; the form of a row says how it is asked.

| slice | form | asked | score |
|---|---|---|---|
| choice | letters | question, `A. …` lines, `Answer:`, as lm-eval's MMLU | 1: the right letter is likeliest |
| choice | text | `Question: …⏎Answer:` | 1: the right choice has the highest mean log-probability |
| number | plain | `Question: …⏎Answer:`, greedily, to the next `Question:` | 1: the final number is right |
| number | chat | the question as a user's turn, greedily | 1: the final number is right |
| nll | chat | the good answer behind its prompt's turn | exp(−mean NLL a token) |

A model that thinks before it answers does so for `number` in the form `chat` alone; what is scored is asked without.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from sparring.data.columns import LETTERS
from sparring.data.numbers import final_number
from sparring.policy.generate import generate
from sparring.policy.load import Policy
from sparring.policy.logprobs import pack, packed_logprobs

STOP: Final = "Question:"
"""A plain answer ends where the model asks the next question (lm-evaluation-harness' gsm8k)."""
_LONGEST: Final = 8192

Row = dict[str, Any]


def score(policy: Policy, row: Row) -> float:
    """The score of a `choice` or `nll` row, in [0, 1]; what is not finite scores 0."""
    if not row["choices"]:
        return nll_score(policy, row)
    scores = letter_scores(policy, row) if row["form"] == "letters" else text_scores(policy, row)
    best = max(range(len(scores)), key=lambda i: scores[i] if math.isfinite(scores[i]) else -math.inf)
    return float(best == row["answer"] and math.isfinite(scores[best]))


def letters_prompt(question: str, choices: Sequence[str]) -> str:
    """What the model reads before the letter: lm-evaluation-harness' MMLU, without the subject's sentence."""
    lines = [f"{LETTERS[i]}. {choice}" for i, choice in enumerate(choices)]
    return "\n".join([question.strip(), *lines, "Answer:"])


def letter_scores(policy: Policy, row: Row) -> list[float]:
    """Log-likelihood (nats) of each letter behind `letters_prompt`, as lm-evaluation-harness computes it."""
    prompt = letters_prompt(row["prompt"], row["choices"])
    letters = [f" {LETTERS[i]}" for i in range(len(row["choices"]))]
    start = _ids(policy, prompt)
    whole = [_ids(policy, prompt + letter) for letter in letters]
    ends = [ids[len(start) :] for ids in whole]
    room = _room(policy) - max(map(len, ends))
    return [mean * len(end) for mean, end in zip(mean_logprobs(policy.model, start[-room:], ends), ends, strict=True)]


def text_scores(policy: Policy, row: Row) -> list[float]:
    """Mean log-probability (nats a token) of each choice written out."""
    prompt = policy.tokenizer(f"Question: {row['prompt']}\nAnswer:", add_special_tokens=False)["input_ids"]
    choices = [policy.tokenizer(f" {c}", add_special_tokens=False)["input_ids"] for c in row["choices"]]
    return mean_logprobs(policy.model, prompt, choices)


def nll_score(policy: Policy, row: Row) -> float:
    """exp(−mean NLL) of the held-out good answer, in [0, 1]."""
    chat = policy.chat.mode(False)
    (prompt,) = chat.encode([row["prompt"]], 10_000)
    (answer,) = chat.encode_answers([row["target"]], 10_000)
    (mean,) = mean_logprobs(policy.model, prompt, [answer])
    return math.exp(min(mean, 0.0)) if math.isfinite(mean) else 0.0


def number_answers(
    policy: Policy, rows: Sequence[Row], *, tokens: int, batch: int, on_progress: Callable[[int], None] | None = None
) -> list[tuple[str, int]]:
    """Worked answers to `number` rows, told greedily, and their lengths in tokens as told (before the cut)."""
    prompts = [_number_prompt(policy, row, _room(policy) - tokens) for row in rows]
    found = generate(
        policy.model,
        prompts,
        eos=policy.chat.eos,
        max_new_tokens=tokens,
        temperature=0.0,
        seed=0,
        batch=batch,
        on_progress=on_progress,
    )
    plain = [row["form"] != "chat" for row in rows]
    bare, asked = policy.chat.mode(False), policy.chat
    texts = [(bare if p else asked).decode([ids])[0] for p, ids in zip(plain, found.ids, strict=True)]
    cut = [text.split(STOP, 1)[0].strip() if one else text for text, one in zip(texts, plain, strict=True)]
    return list(zip(cut, map(len, found.ids), strict=True))


def number_score(row: Row, answer: str) -> float:
    """1 when the final number of the answer is the right one."""
    return float(final_number(answer) == row["target"])


def mean_logprobs(model: Any, prompt: Sequence[int], completions: Sequence[Sequence[int]]) -> list[float]:
    """Mean log-probability (nats a token) of each completion behind one prompt, which is computed once."""
    width = max(map(len, completions))
    ids = torch.tensor([[*c, *[0] * (width - len(c))] for c in completions])
    mask = torch.tensor([[1] * len(c) + [0] * (width - len(c)) for c in completions])
    prompts = torch.tensor([list(prompt)] * len(completions))
    packed = pack(prompts, torch.ones_like(prompts), ids, mask)
    logprobs, _ = packed_logprobs(model, packed, ids, entropy=False)
    means: Tensor = (logprobs * mask).sum(1) / mask.sum(1)
    return [float(m) for m in means]


def _number_prompt(policy: Policy, row: Row, room: int) -> list[int]:
    if row["form"] == "chat":
        (ids,) = policy.chat.encode([row["prompt"]], room)
        return ids
    return _ids(policy, f"Question: {row['prompt']}\nAnswer:")[-room:]


def _ids(policy: Policy, text: str) -> list[int]:
    ids: list[int] = policy.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids


def _room(policy: Policy) -> int:
    """Tokens that the model can read at once; a longer prompt loses its beginning, as in lm-evaluation-harness."""
    return min(int(getattr(policy.model.config, "max_position_embeddings", None) or _LONGEST), _LONGEST)
