"""Stores that break the promise of one winner are refused; these are the two ways in which real ones do."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from sparring.errors import StoreError
from sparring.store.conditional import check_conditional_puts
from sparring.store.local import LocalStore


class LooksThenPuts(LocalStore):
    """As servers do that check the condition and then write, without holding the name."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if self.exists(key):
            return False
        time.sleep(0.01)
        self.put(key, data)
        return True


class IgnoresTheCondition(LocalStore):
    """As servers do that do not know If-None-Match."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self.put(key, data)
        return True


class SaysLostToAll(LocalStore):
    """Nobody ever wins."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self.put(key, data)
        return False


@pytest.mark.parametrize("kind", [LooksThenPuts, IgnoresTheCondition, SaysLostToAll])
def test_broken_stores_are_refused(tmp_path: Path, kind: type[LocalStore]) -> None:
    store = kind(tmp_path)
    with pytest.raises(StoreError, match="does not hold conditional puts"):
        check_conditional_puts(store)
    assert store.list() == []
