"""A tiny random model for trainings."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparring.policy.load import Policy, load_policy
from tests.models import save_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def policy(folder: Path) -> Policy:
    return load_policy(folder)
