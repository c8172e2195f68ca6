"""What `sparring export|sign|gc` do and say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sparring.cli.facts import Facts
from sparring.config.run import RunConfig
from sparring.registry.champion import read_log
from sparring.registry.checkpoints import check_checkpoint
from sparring.registry.export import export_checkpoint, promoted_digest
from sparring.registry.gc import Item, plan, sweep
from sparring.registry.lock import hold_line
from sparring.registry.marks import Retention
from sparring.registry.signing import password_from_env, read_signature, sign_checkpoint
from sparring.store.base import Store

_DIGEST = 64
"""Digits of a whole digest."""


def exported(store: Store, named: str, folder: Path) -> Facts:
    """Exports a promoted checkpoint with its card. Raises UsageError, NotFoundError, CorruptError."""
    from sparring.steps.card import promotion_of, write_card  # pyarrow and scipy

    log = read_log(store)
    digest = promoted_digest(log, named)
    record = promotion_of(log, digest)
    written = export_checkpoint(store, digest, folder, card=write_card(store, record.number))
    size = sum(path.stat().st_size for path in written.rglob("*") if path.is_file())
    is_signed = read_signature(store, digest) is not None
    return {"folder": str(written), "digest": digest, "round": record.round, "record": record.number,
            "bytes": size, "signed": is_signed}  # fmt: skip


def signed(store: Store, named: str, key: Path) -> str:
    """Reads every blob of a promoted checkpoint, or of any other named by its whole digest, then signs it."""
    whole = len(named) == _DIGEST and named != "champion"
    digest = named if whole else promoted_digest(read_log(store), named)
    check_checkpoint(store, digest)
    sign_checkpoint(store, digest, key, password_from_env())
    return f"signed {digest}"


def collected(store: Store, config: RunConfig, retention: Retention, *, delete: bool) -> tuple[Sequence[Item], Facts]:
    """What goes and the totals. Deleting holds the line's lock: on this machine no round runs beside it."""
    if not delete:
        planned = plan(store, retention)
        facts: Facts = {"dry_run": True, "would_free_bytes": planned.size, "younger_than_grace": planned.young}
        return planned.items, facts
    with hold_line(config.store, config.line):
        swept = sweep(store, retention)
    return swept.items, {
        "dry_run": False,
        "freed_bytes": swept.size,
        "named_meanwhile": len(swept.spared),
        "younger_than_grace": swept.young,
    }
