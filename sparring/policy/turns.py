"""Chat encoding of several turns, and of an answer that is begun for the model: all texts are data, never control.

Like `sparring.policy.chat`: the template is rendered once around markers, one for each turn; what stands between them
is tokenised with its control tokens, the texts with every special token split into ordinary ones. For plain texts the
result equals `apply_chat_template` (with `continue_final_message` where the answer is begun).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sparring.errors import ModelError
from sparring.policy.chat import data_ids

_MARKER = "sparringturn{}x"
_CHARS_A_TOKEN = 32


@dataclass(frozen=True)
class Conversation:
    """User turns, the assistant's answers between them (one fewer), and what its next answer begins with."""

    user: tuple[str, ...]
    assistant: tuple[str, ...] = ()
    prefill: str = ""

    def __post_init__(self) -> None:
        if len(self.user) != len(self.assistant) + 1:
            raise ValueError(f"{len(self.user)} user turns do not enclose {len(self.assistant)} answers")

    @property
    def texts(self) -> list[str]:
        """All turns in their order: user, assistant, …, user."""
        answers = [*self.assistant, ""]
        return [text for pair in zip(self.user, answers, strict=True) for text in pair][:-1]


class TurnEncoder:
    """Encodes conversations as token ids that end in the assistant's header, or in the begun answer."""

    def __init__(self, tokenizer: Any, template: Any = None) -> None:
        """`template`: the chat template to ask with; the tokenizer's own when not given."""
        self.tokenizer = tokenizer
        self._keys = {"chat_template": template} if isinstance(template, str) else {}
        self._template = template or getattr(tokenizer, "chat_template", None)
        self._frames: dict[int, list[list[int]]] = {}

    def encode(self, conversations: Sequence[Conversation], max_tokens: int) -> list[list[int]]:
        """At most `max_tokens` ids each. The longest turns are cut at their ends; headers and prefill survive.

        Raises ModelError when `max_tokens` leaves no room, or when the template does not show every turn once.
        """
        return [self._encode(conversation, max_tokens) for conversation in conversations]

    def prefill(self, text: str) -> list[int]:
        """Token ids of a begun answer, as they stand behind the assistant's header."""
        return self._data([text])[0] if text else []

    def _encode(self, conversation: Conversation, max_tokens: int) -> list[int]:
        frame, begun = self._frame(len(conversation.texts)), self.prefill(conversation.prefill)
        room = max_tokens - sum(map(len, frame)) - len(begun)
        if room < len(conversation.texts):
            raise ModelError(
                f"max_prompt_tokens {max_tokens} leaves no room for {len(conversation.texts)} turns, whose headers and "
                f"prefill take {max_tokens - room} tokens",
                hint="raise evaluate.adaptive.max_prompt_tokens",
            )
        rows = self._data([text.strip()[: room * _CHARS_A_TOKEN] for text in conversation.texts])
        most = level([len(row) for row in rows], room)
        joined = list(frame[0])
        for row, between in zip(rows, frame[1:], strict=True):
            joined += [*row[:most], *between]
        return joined + begun

    def _data(self, texts: list[str]) -> list[list[int]]:
        return data_ids(self.tokenizer, texts, self._template)

    def _frame(self, turns: int) -> list[list[int]]:
        """Token ids before, between and behind `turns` texts."""
        if turns not in self._frames:
            marks = [_MARKER.format(i) for i in range(turns)]
            chat = [{"role": ("user", "assistant")[i % 2], "content": mark} for i, mark in enumerate(marks)]
            text = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, **self._keys)
            if re.findall(_MARKER.format("[0-9]+"), text) != marks:
                raise ModelError(f"the chat template does not show {turns} turns once each, in their order")
            between = re.split("|".join(marks), text)
            ids = self.tokenizer(between, add_special_tokens=False)["input_ids"]
            self._frames[turns] = [list(row) for row in ids]
        return self._frames[turns]


def level(sizes: Sequence[int], room: int) -> int:
    """The highest limit L with Σ min(size, L) ≤ room: the longest are cut first, all to one length.

    >>> level([5, 100, 90], 65)
    30
    """
    low, high = 0, max([*sizes, 0])
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if sum(min(size, middle) for size in sizes) <= room else (low, middle - 1)
    return low
