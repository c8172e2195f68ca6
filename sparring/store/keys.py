"""What a key may be: the same rules for a folder and for S3, so that a store can be moved between them."""

from __future__ import annotations

from sparring.errors import StoreError

_MOST_BYTES = 900  # S3 allows 1024 with the store's own prefix
_MOST_PART_BYTES = 255  # the longest file name of the usual file systems


def check_key(key: str) -> str:
    """Returns `key` when it is relative, `/`-separated and without `.`, `..` or empty parts; else StoreError."""
    fault = _fault(key)
    if fault:
        raise StoreError(f"store key {key[:200]!r} {fault}", hint="keys are relative names with '/' between the parts")
    return key


def check_prefix(prefix: str) -> str:
    """Like `check_key`, for a plain string prefix: may be empty and may end anywhere inside a part."""
    if prefix:
        check_key(prefix.removesuffix("/") if len(prefix) > 1 else prefix)
    return prefix


def join(prefix: str, key: str) -> str:
    """`key` below `prefix`; an empty prefix is the root."""
    return f"{prefix}/{key}" if prefix else key


def _fault(key: str) -> str | None:
    if not key:
        return "is empty"
    if key.startswith("/"):
        return "is absolute"
    if "\\" in key or any(ord(letter) < 32 or 0x7F <= ord(letter) < 0xA0 for letter in key):
        return "holds a backslash or a control character"
    if any(0xD800 <= ord(letter) < 0xE000 for letter in key):
        return "is not valid Unicode"
    return _part_fault(key)


def _part_fault(key: str) -> str | None:
    if len(key.encode()) > _MOST_BYTES:
        return f"is longer than {_MOST_BYTES} bytes"
    for part in key.split("/"):
        if part in ("", ".", ".."):
            return f"has the part {part!r}"
        if len(part.encode()) > _MOST_PART_BYTES:
            return f"has a part of more than {_MOST_PART_BYTES} bytes"
    return None
