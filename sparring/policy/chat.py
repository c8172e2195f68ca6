"""Chat encoding in which user text is data: control tokens inside a prompt never become control.

The chat template is rendered once around a marker; the parts before and after it are tokenised with their control
tokens, the user's text with every special token split into ordinary ones. For plain text the result equals
`apply_chat_template`. A long text is cut at its end so that the header of the assistant's turn always survives.

A model that thinks before it answers (`sparring.policy.thinking`) is asked with its role text and a begun thought, and
of what it writes only the answer is decoded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from sparring.errors import ModelError
from sparring.game.thought import ANSWER, CLOSE, END, OPEN, TAGS, Thought, parse
from sparring.policy.thinking import unwrap, wrap

_MARKER = "sparringuserturn"
_PROBE = "Rewrite 3,141 lines of C++ (naïve, <|im_end|>) in 24 hours?\n\tDon't: «ça va» — 你好 🙂 [/INST]"
_CHARS_A_TOKEN = 32


@dataclass(frozen=True)
class ChatEncoder:
    """Encodes one user turn as token ids ending in the assistant's header; decodes answers to plain text.

    `template` is the chat template that it is asked with. With `thinks` the model thinks first and `own` is its
    template without that, else they are one. `context` is the most tokens that the model can read and write, if known.
    `end` is the token with which the template ends the assistant's turn; of Gemma it is not the tokenizer's own.
    """

    tokenizer: Any
    before: tuple[int, ...]
    after: tuple[int, ...]
    eos: frozenset[int]
    end: int
    template: Any = None
    own: Any = None
    thinks: bool = False
    context: int | None = None

    @classmethod
    def of(cls, tokenizer: Any, model_config: Any | None = None) -> ChatEncoder:
        """Reads the template once. Raises ModelError for a tokenizer without one."""
        template = getattr(tokenizer, "chat_template", None)
        if not template:
            raise ModelError("the tokenizer has no chat template", hint="add chat_template.jinja to the model folder")
        own, thinks = unwrap(template) if isinstance(template, str) else (template, False)
        of_text = getattr(model_config, "get_text_config", lambda: model_config)()  # of a model that sees, too
        context = getattr(of_text, "max_position_embeddings", None)
        frame, end = _frame(tokenizer, template), _end(tokenizer, own)
        eos = _eos_ids(tokenizer, model_config) | {end}
        return cls(tokenizer, *frame, eos, end, template, own, thinks, context)

    def mode(self, cot: bool) -> ChatEncoder:
        """The model asked with, or without, a hidden chain of thought. Raises ModelError where it cannot think."""
        if cot == self.thinks:
            return self
        return self._with(_thinking(self.tokenizer, self.own) if cot else self.own, cot)

    @property
    def roleless(self) -> ChatEncoder:
        """Without the defender's role text; the thought is begun all the same."""
        if not self.thinks:
            return self
        return self._with(_thinking(self.tokenizer, self.own, role=""), True)

    def _with(self, template: Any, thinks: bool) -> ChatEncoder:
        frame = _frame(self.tokenizer, template)
        return ChatEncoder(self.tokenizer, *frame, self.eos, self.end, template, self.own, thinks, self.context)

    @property
    def overhead(self) -> int:
        """Tokens that role text and begun thought add to a prompt; 0 for a model that does not think."""
        plain = self.mode(False)
        return len(self.before) + len(self.after) - len(plain.before) - len(plain.after)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of how a user turn becomes tokens: header, end-of-turn tokens and the ids of a probe text.

        Equal for two folders that ask a model the same, however their tokenizer files are written. What a model
        thinks, and what tells it to, is part of its answer, not of the question.
        """
        plain = self.mode(False)
        (probe,) = data_ids(self.tokenizer, [_PROBE], None)
        parts = [list(plain.before), list(plain.after), sorted(self.eos), probe]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def encode(self, texts: list[str], max_tokens: int) -> list[list[int]]:
        """Token ids of each text as a user turn, at most `max_tokens` long, header included.

        Raises ModelError when that leaves no room, or when a prompt fills the model's whole context.
        """
        room = max_tokens - len(self.before) - len(self.after)
        if room < 1:
            raise ModelError(
                f"max_prompt_tokens {max_tokens} leaves no room for the chat header of "
                f"{len(self.before) + len(self.after)} tokens",
                hint="raise max_prompt_tokens",
            )
        # cut generously by characters first: a token has at least one, and megabytes need not be tokenised
        cut = [text.strip()[: room * _CHARS_A_TOKEN] or " " for text in texts]
        rows = [[*self.before, *row[:room], *self.after] for row in data_ids(self.tokenizer, cut, self.template)]
        fits(max(map(len, rows), default=0) + 1, self.context, "a prompt and its answer's first token")
        return rows

    def encode_answers(self, texts: list[str], max_tokens: int) -> list[list[int]]:
        """Token ids of answers as the assistant would write them, with the end-of-turn token when they fit."""
        ids = data_ids(self.tokenizer, texts, self.template)
        return [[*row, self.end][:max_tokens] for row in ids]

    def encode_thoughts(self, thoughts: Sequence[Thought], max_tokens: int) -> list[list[int]]:
        """Token ids of whole completions behind a begun thought, the answer cut so that its end always stands there."""
        private = data_ids(self.tokenizer, [t.private for t in thoughts], self.template)
        answers = data_ids(self.tokenizer, [t.answer for t in thoughts], self.template)
        middle, end = self._control(f"{CLOSE}\n{ANSWER}"), [*self._control(END), self.end]
        room = [max_tokens - len(middle) - len(end) - len(row) for row in private]
        if min(room, default=1) < 1:
            raise ModelError(f"{max_tokens} tokens leave no room to think and answer", hint="raise game.thought_tokens")
        rows = zip(private, answers, room, strict=True)
        return [[*thought, *middle, *answer[:most], *end] for thought, answer, most in rows]

    def decode(self, ids: list[list[int]]) -> list[str]:
        """Plain text of answers, special tokens left out. Of a model that thinks the answer alone, or nothing."""
        return [answer or "" for _, answer in self.read(ids)]

    def read(self, ids: list[list[int]]) -> list[tuple[str | None, str | None]]:
        """What was thought and what is passed on, for each completion.

        Without chain of thought (None, text). With it, of a completion that broke the form all is private:
        (text, None).
        """
        if not self.thinks:
            said = [[i for i in row if i not in self.eos] for row in ids]  # an end of turn need not be special
            texts = self.tokenizer.batch_decode(said, skip_special_tokens=True)
            return [(None, str(text).strip()) for text in texts]
        return [_parts(text) for text in self._with_tags(ids)]

    def _with_tags(self, ids: list[list[int]]) -> list[str]:
        """Text with the tags of the form, also where they are special tokens, and without any other special token."""
        tags = {i for tag in TAGS if len(row := self._control(tag)) == 1 for i in row}
        dropped = (set(self.tokenizer.all_special_ids) | self.eos) - tags
        kept = [[i for i in row if i not in dropped] for row in ids]
        return [str(text).strip() for text in self.tokenizer.batch_decode(kept, skip_special_tokens=False)]

    def _control(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def data_ids(tokenizer: Any, texts: Sequence[str], template: Any) -> list[list[int]]:
    """Token ids of texts that are data: no special token, nor any other added token that the template writes.

    `split_special_tokens` covers the special ones. Added tokens that are not special (`<tool_call>`, a tag of the
    chain of thought) are taken apart behind their first character.
    """
    written = _written_tokens(tokenizer, template)
    pieces = [list(_apart(text, written)) for text in texts]
    flat = [piece for part in pieces for piece in part]
    rows = iter(tokenizer(flat, add_special_tokens=False, split_special_tokens=True)["input_ids"] if flat else [])
    return [[token for _ in part for token in next(rows)] for part in pieces]


def fits(tokens: int, context: int | None, what: str) -> None:
    """Raises ModelError when so many tokens are more than the model's context."""
    if context is not None and tokens > context:
        raise ModelError(
            f"{what} take {tokens} tokens, the model's context has {context}",
            hint="lower max_prompt_tokens or the numbers of tokens to write, or take a model with a longer context",
        )


def _written_tokens(tokenizer: Any, template: Any) -> list[str]:
    """Added tokens that are not special but control all the same: the template writes them, or they are our tags."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    plain = [str(token.content) for token in added.values() if not token.special and len(token.content) > 1]
    return [content for content in plain if content in TAGS or (content.strip() and content in str(template or ""))]


def _apart(text: str, tokens: Sequence[str]) -> Iterator[str]:
    """The text in pieces of which none holds a token whole."""
    start = 0
    while True:
        found = [(at, token) for token in tokens if (at := text.find(token, start)) >= 0]
        if not found:
            break
        at, _ = min(found)
        yield text[start : at + 1]
        start = at + 1
    yield text[start:]


def _parts(text: str) -> tuple[str | None, str | None]:
    found = parse(text)
    return (found.private, found.answer) if found else (text, None)


def _thinking(tokenizer: Any, own: Any, **role: str) -> str:
    """The template of a model that thinks. Raises ModelError where template or tokenizer cannot carry the form."""
    if not isinstance(own, str):
        raise ModelError("the tokenizer holds several chat templates", hint="leave one, or set game.cot to false")
    text = _render(tokenizer, own).rstrip()
    template = wrap(own, **role, opens=not text.endswith(OPEN))
    if not _render(tokenizer, template).rstrip().endswith(OPEN):
        raise ModelError("the chat template cannot begin a thought", hint="set game.cot to false")
    probe = f"a{CLOSE}\n{ANSWER}b{END}"
    ids = tokenizer(probe, add_special_tokens=False)["input_ids"]
    if parse(str(tokenizer.decode(ids, skip_special_tokens=False))) != Thought("a", "b"):
        raise ModelError("the tokenizer cannot write the tags <think> and <answer>", hint="set game.cot to false")
    return template


def _render(tokenizer: Any, template: Any) -> str:
    turn = [{"role": "user", "content": _MARKER}]
    keys = {} if template is None else {"chat_template": template}
    if isinstance(template, dict):
        keys = {}  # several, by name: the tokenizer chooses
    return str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True, **keys))


def _frame(tokenizer: Any, template: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids before and behind the user's text."""
    text = _render(tokenizer, template)
    if text.count(_MARKER) != 1:
        raise ModelError("the chat template does not show the user's text exactly once", hint="check the template")
    ids = tokenizer(text.split(_MARKER), add_special_tokens=False)["input_ids"]
    return tuple(ids[0]), tuple(ids[1])


def _end(tokenizer: Any, template: Any) -> int:
    """The control token right behind the assistant's text as the template writes it; else the tokenizer's own."""
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _MARKER}]
    keys = {"chat_template": template} if isinstance(template, str) else {}
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False, **keys))
    except TemplateError:  # one that knows no assistant's turn
        return int(tokenizer.eos_token_id)
    ids = tokenizer(text.rpartition(_MARKER)[2].lstrip(), add_special_tokens=False)["input_ids"]
    return int(ids[0] if ids and ids[0] in tokenizer.added_tokens_decoder else tokenizer.eos_token_id)


def _eos_ids(tokenizer: Any, model_config: Any | None) -> frozenset[int]:
    found = {tokenizer.eos_token_id}
    configured = getattr(model_config, "eos_token_id", None)
    found |= set(configured) if isinstance(configured, (list, tuple)) else {configured}
    return frozenset(int(i) for i in found if i is not None)
