"""Layers that carry a state along the row cannot share a pass between rows: refused, not trained wrongly."""

from __future__ import annotations

import pytest
import torch
from transformers import PretrainedConfig

from sparring.errors import ModelError
from sparring.policy.logprobs import pack_rows, tree_masks


def test_recurrent_layers_are_refused() -> None:
    packed = pack_rows([[1, 2]], [[3]])
    config = PretrainedConfig(layer_types=["full_attention", "linear_attention"])
    with pytest.raises(ModelError, match="layers of type linear_attention cannot be trained"):
        tree_masks(config, packed, torch.device("cpu"))
