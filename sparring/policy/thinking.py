"""The chat template of a model that thinks before it answers: it says so itself, so that served equals gated.

A checkpoint trained with `game.cot` carries its own template between two pieces of Jinja: the first puts the
defender's role text before the last user turn, the second begins the assistant's turn with `<think>`. Any server that
renders the folder's template asks the model exactly as the gate did. `unwrap` gives back the template that was there.
"""

from __future__ import annotations

import json
from pathlib import Path

from sparring.errors import ModelError
from sparring.game.prompts import DEFENDER_ROLE
from sparring.game.thought import OPEN

_BEGIN = "{#- sparring: hidden chain of thought, version 1 -#}"
_BODY = "{#- sparring: the model's own template -#}"
_FOOT = "{#- sparring: the thought begins -#}{% if add_generation_prompt %}" + OPEN + "{% endif %}"
_FILE, _CONFIG = "chat_template.jinja", "tokenizer_config.json"


def wrap(template: str, role: str = DEFENDER_ROLE, *, opens: bool = True) -> str:
    """The template with the role text before the last user turn; `opens`: it begins the thought, too."""
    head = (
        "{%- if messages and messages[-1]['role'] == 'user' and messages[-1]['content'] is string -%}"
        f"{{%- set messages = messages[:-1] + [{{'role': 'user', 'content': {json.dumps(role)}"
        " + (messages[-1]['content'] | trim)}] -%}{%- endif -%}"
    )
    return f"{_BEGIN}{head if role else ''}{_BODY}{template.removesuffix(chr(10))}{_FOOT if opens else ''}"


def unwrap(template: str) -> tuple[str, bool]:
    """The model's own template, and whether it was wrapped."""
    if not template.startswith(_BEGIN):
        return template, False
    return template.partition(_BODY)[2].removesuffix(_FOOT), True


def carry(folder: Path, template: str) -> None:
    """Makes `template` the chat template of a model folder, where it is not already. Raises ModelError."""
    file, config = folder / _FILE, folder / _CONFIG
    try:
        settings = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
        if "chat_template" in settings:  # some servers read it here first
            if not isinstance(settings["chat_template"], str):
                raise ModelError(f"{config} holds several chat templates", hint="leave one")
            if settings["chat_template"] != template:
                config.write_text(json.dumps({**settings, "chat_template": template}, indent=2), encoding="utf-8")
        if file.is_file() or "chat_template" not in settings:
            file.write_text(template, encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ModelError(f"the chat template of {folder} cannot be written: {error}") from error
