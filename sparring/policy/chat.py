"""Chat encoding in which user text is data: control tokens inside a prompt never become control.

The chat template is rendered once around a marker; the parts before and after it are tokenised with their control
tokens, the user's text with every special token split into ordinary ones. For plain text the result equals
`apply_chat_template`. A long text is cut at its end so that the header of the assistant's turn always survives.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from sparring.errors import ModelError

_MARKER = "sparringuserturn"
_PROBE = "Rewrite 3,141 lines of C++ (naïve, <|im_end|>) in 24 hours?\n\tDon't: «ça va» — 你好 🙂 [/INST]"


@dataclass(frozen=True)
class ChatEncoder:
    """Encodes one user turn as token ids ending in the assistant's header; decodes answers to plain text."""

    tokenizer: Any
    before: tuple[int, ...]
    after: tuple[int, ...]
    eos: frozenset[int]

    @classmethod
    def of(cls, tokenizer: Any, model_config: Any | None = None) -> ChatEncoder:
        """Reads the template once. Raises ModelError for a tokenizer without one."""
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError("the tokenizer has no chat template", hint="add chat_template.jinja to the model folder")
        turn = [{"role": "user", "content": _MARKER}]
        text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        if text.count(_MARKER) != 1:
            raise ModelError("the chat template does not show the user's text exactly once", hint="check the template")
        before, after = text.split(_MARKER)
        ids = tokenizer([before, after], add_special_tokens=False)["input_ids"]
        return cls(tokenizer, tuple(ids[0]), tuple(ids[1]), _eos_ids(tokenizer, model_config))

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of how a user turn becomes tokens: header, end-of-turn tokens and the ids of a probe text.

        Equal for two folders that ask a model the same, however their tokenizer files are written.
        """
        probe = self.tokenizer(_PROBE, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        parts = [list(self.before), list(self.after), sorted(self.eos), list(probe)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def encode(self, texts: list[str], max_tokens: int) -> list[list[int]]:
        """Token ids of each text as a user turn, at most `max_tokens` long, header included."""
        room = max_tokens - len(self.before) - len(self.after)
        if room < 1:
            raise ModelError(
                f"max_prompt_tokens {max_tokens} leaves no room for the chat header of "
                f"{len(self.before) + len(self.after)} tokens",
                hint="raise max_prompt_tokens",
            )
        # cut generously by characters first: a token has at least one, and megabytes need not be tokenised
        cut = [text.strip()[: room * 32] or " " for text in texts]
        ids = self.tokenizer(cut, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [[*self.before, *row[:room], *self.after] for row in ids]

    def encode_answers(self, texts: list[str], max_tokens: int) -> list[list[int]]:
        """Token ids of answers as the assistant would write them, with the end-of-turn token when they fit."""
        ids = self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [[*row, self.tokenizer.eos_token_id][:max_tokens] for row in ids]

    def decode(self, ids: list[list[int]]) -> list[str]:
        """Plain text of answers, special tokens left out."""
        return [str(text).strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]


def _eos_ids(tokenizer: Any, model_config: Any | None) -> frozenset[int]:
    found = {tokenizer.eos_token_id}
    configured = getattr(model_config, "eos_token_id", None)
    found |= set(configured) if isinstance(configured, (list, tuple)) else {configured}
    return frozenset(int(i) for i in found if i is not None)
