"""Loading a policy from a checkpoint folder: safetensors only, float32 on CPU, nothing executed from the folder."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from sparring.errors import ModelError
from sparring.policy.chat import ChatEncoder
from sparring.policy.thinking import carry


@dataclass(frozen=True)
class Policy:
    """A model with its tokenizer and chat encoding, in evaluation mode."""

    model: Any
    tokenizer: Any
    chat: ChatEncoder


def load_policy(folder: Path) -> Policy:
    """Loads the model in `folder`. Raises ModelError naming the folder when it cannot be used."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"model folder {folder} cannot be loaded: {first}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Policy(model.eval(), tokenizer, ChatEncoder.of(tokenizer, model.config))


def save_policy(model: Any, start: Path, folder: Path) -> None:
    """Writes the model's weights to `folder`, with every other file as it is in `start`, where training began.

    So tokenizer, chat template and configuration are served exactly as they were gated, and a training that moves no
    weight leaves the digest it started from.
    """
    scratch = folder.with_name(f"{folder.name}.weights")
    model.save_pretrained(scratch)
    shutil.copytree(start, folder, ignore=shutil.ignore_patterns("*.safetensors*"), dirs_exist_ok=True)
    for path in scratch.glob("*.safetensors*"):
        shutil.move(path, folder / path.name)
    shutil.rmtree(scratch)


def carry_mode(folder: Path, chat: ChatEncoder, cot: bool) -> None:
    """Makes a saved model's folder ask it as it was trained, with or without chain of thought. Raises ModelError."""
    trained = chat.mode(cot)
    saved = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if saved.chat_template != trained.template:
        carry(folder, trained.template)


def trains_in_bf16(precision: str) -> bool:
    """What `model.precision` comes to on this machine: True for matrix products in bf16 (autocast)."""
    if precision == "auto":
        return torch.cuda.is_bf16_supported() if torch.cuda.is_available() else torch.cpu._is_amx_tile_supported()
    return precision == "bf16"


def set_threads(threads: int) -> None:
    """Sets torch's CPU threads; 0 keeps its default (all cores)."""
    if threads > 0:
        torch.set_num_threads(threads)
