"""Small tokenizers with the control tokens, splitting rules and chat templates of the model families at hand.

The vocabularies are learnt from a few sentences; what matters here is as the families' files have it: which added
tokens there are and which of them are special, the splitting of text, and the template (without tools and dates).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CORPUS: Final = [
    "How do I boil an egg? Put it into boiling water for seven minutes, then cool it.",
    "user model assistant system [INST] [/INST] <answer> </answer> think think answer Request:",
    "You are an AI assistant. First think in private: is the request below innocent, or does it ask for harm?",
    "Tell me a story about a river, a mountain and the sea, in 24 lines.",
]
_LLAMA3_SPLIT: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHATML: Final = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    "{# <tool_call> <tool_response> <think> #}"
)
LLAMA3: Final = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL: Final = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + '[/INST]' }}{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
)
GEMMA: Final = (
    "{{ bos_token }}{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else 'user' %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """A family's template and added tokens: special ones, and those that are control without being special."""

    name: str
    template: str
    special: tuple[str, ...]
    other: tuple[str, ...] = ()
    bos: str | None = None
    eos: str = ""

    @property
    def controls(self) -> tuple[str, ...]:
        """Every control token."""
        return (*self.special, *self.other)


FAMILIES: Final = (
    Family(
        "chatml",
        CHATML,
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        ("<think>", "</think>", "<tool_call>", "<tool_response>"),  # as Qwen3 has them
        eos="<|im_end|>",
    ),
    Family(
        "llama3",
        LLAMA3,
        (
            "<|begin_of_text|>",
            "<|end_of_text|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eom_id|>",
            "<|eot_id|>",
        ),
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
    ),
    Family(
        "mistral",
        MISTRAL,
        ("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]"),
        bos="<s>",
        eos="</s>",
    ),
    Family(
        "gemma",
        GEMMA,
        ("<pad>", "<eos>", "<bos>", "<unk>"),
        ("<start_of_turn>", "<end_of_turn>"),  # not special in the first Gemma's files
        bos="<bos>",
        eos="<eos>",
    ),
)


@lru_cache
def tokenizer_of(family: Family) -> Any:
    """The family's tokenizer as transformers loads one."""
    pieces = family.name in ("mistral", "gemma")
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    inner = Tokenizer(models.BPE(byte_fallback=pieces, unk_token="<unk>" if pieces else None))
    if pieces:
        if family.name == "mistral":
            inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        else:
            inner.normalizer = normalizers.Replace(" ", "▁")
        inner.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)][
                : 4 if family.name == "mistral" else 3
            ]
        )
        trainer = trainers.BpeTrainer(
            vocab_size=700, special_tokens=[*family.special, *bytes_], initial_alphabet=[], show_progress=False
        )
    else:
        split = pre_tokenizers.Split(Regex(_LLAMA3_SPLIT), "isolated")
        inner.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
        inner.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=700, special_tokens=list(family.special), initial_alphabet=alphabet, show_progress=False
        )
    inner.train_from_iterator(CORPUS, trainer)
    inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in family.special])
    inner.add_tokens([AddedToken(token, special=False, normalized=False) for token in family.other])
    names = {"eos_token": family.eos, "pad_token": family.eos} | ({"bos_token": family.bos} if family.bos else {})
    names["additional_special_tokens"] = [t for t in family.special if t not in names.values()]  # type: ignore[assignment]
    return PreTrainedTokenizerFast(tokenizer_object=inner, chat_template=family.template, **names)
