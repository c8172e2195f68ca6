"""A full disk is one line, whichever library met it; any other fault stays what it is."""

from __future__ import annotations

import errno
from pathlib import Path

import pyarrow as pa
import pytest

from sparring.errors import ModelError, StoreError
from sparring.steps.entry import room

FULL = [
    OSError(errno.ENOSPC, "No space left on device", "/work/state.safetensors"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    pa.ArrowException("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device"),
]


@pytest.mark.parametrize("fault", FULL, ids=lambda fault: type(fault).__name__)
def test_a_full_disk_is_one_line(fault: Exception, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no space left for") as told, room(tmp_path):
        raise fault
    assert str(getattr(fault, "filename", None) or tmp_path) in told.value.message and "\n" not in str(told.value)


@pytest.mark.parametrize("fault", [OSError(errno.EACCES, "Permission denied"), ValueError("x"), ModelError("y")])
def test_other_faults_are_left_alone(fault: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(fault)) as told, room(tmp_path):
        raise fault
    assert told.value is fault
