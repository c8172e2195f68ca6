"""Who plays in step `selfplay`: the adapters that a round goes on from and leaves, and the league's champions."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparring.config.run import SelfplayConfig
from sparring.errors import NotFoundError
from sparring.registry.adapters import AdapterRecord, Lineage, adapters_of, lineage, put_adapters
from sparring.registry.champion import read_log
from sparring.registry.checkpoints import has_checkpoint, load_checkpoint, save_checkpoint
from sparring.steps.training import SelfplayInputs
from sparring.steps.work import CHECKPOINTS
from sparring.store.base import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """What a session is set up with: the folder that training loads (with adapters their base), adapters, opponents."""

    base: Path
    begun: Any = None
    opponents: Any = None


def set_up(config: SelfplayConfig, store: Store, inputs: SelfplayInputs, start: Path) -> Stage:
    """The stage of a round whose policy lies in `start`, a checkpoint's folder.

    Raises NotFoundError when a league's champion, a base or an adapter is no longer in the store.
    """
    base, begun = start, None
    if config.adapters == "per_role":
        base, begun = _adapters(store, lineage(store, start.name, inputs.prepared.round), _folder(inputs))
    return Stage(base, begun, _league(config, store, inputs) if config.opponent == "league" else None)


def _folder(inputs: SelfplayInputs) -> Path:
    return inputs.work / CHECKPOINTS


def _adapters(store: Store, line: Lineage, folder: Path) -> tuple[Path, Any]:
    from sparring.train.roles import Begun

    if line.attacker or line.defender:
        log.info("adapters go on from attacker %s and defender %s", line.attacker, line.defender)
    attacker, defender = (
        load_checkpoint(store, digest, folder) if digest else None for digest in (line.attacker, line.defender)
    )
    return load_checkpoint(store, line.base, folder), Begun(attacker, defender)


def _league(config: SelfplayConfig, store: Store, inputs: SelfplayInputs) -> Any:
    from sparring.train.league import Opponents

    names = champions(store)[: config.league_champions]
    if not names:
        log.info("the league is empty: there was no champion yet, every game is self-play")
    for digest in names:
        if not has_checkpoint(store, digest):
            raise NotFoundError(
                f"champion {digest[:12]}, which selfplay.league_champions = {config.league_champions} asks for, is no "
                f"longer in {store.url}",
                hint=f"set selfplay.league_champions to {names.index(digest)} or less, and let gc keep more champions"
                if names.index(digest)
                else "set selfplay.opponent = current",
            )
    return Opponents(names, lambda number, role: load_player(store, names[number], role, _folder(inputs)))


def champions(store: Store) -> list[str]:
    """Every digest that was champion, the latest first. Raises CorruptError for a broken log."""
    crowned = [record.champion for record in reversed(read_log(store).records)]
    return list(dict.fromkeys(digest for digest in crowned if digest))


def load_player(store: Store, digest: str, role: int, folder: Path) -> Any:
    """The model that plays `role` of a promoted checkpoint: itself, or of adapters a role the attacker beside it."""
    from sparring.policy.load import load_policy
    from sparring.train.roles import ATTACKER

    record = adapters_of(store, digest) if role == ATTACKER else None
    if record is None:
        return load_policy(load_checkpoint(store, digest, folder)).model
    from sparring.train.adapters import merged

    base = load_policy(load_checkpoint(store, record.base, folder)).model
    return merged(base, load_checkpoint(store, record.attacker, folder))


def save_trained(config: SelfplayConfig, stage: Stage, model: Any, folder: Path) -> None:
    """Writes the candidate's folder: the trained weights, with adapters the base and the shared or defender's one."""
    from sparring.policy.load import save_policy

    if config.adapters == "none":
        save_policy(model, stage.base, folder)
        return
    from sparring.train.adapters import plain
    from sparring.train.roles import DEFENDER

    with plain(model, DEFENDER) as defender:
        save_policy(defender, stage.base, folder)


def keep_adapters(
    config: SelfplayConfig, store: Store, inputs: SelfplayInputs, stage: Stage, model: Any, candidate: str
) -> None:
    """Stores a round's adapters, one a role, beside its candidate, for the rounds that follow; otherwise nothing."""
    if config.adapters != "per_role":
        return
    from sparring.train.adapters import save_adapter
    from sparring.train.roles import ATTACKER, DEFENDER

    digests = {}
    for role, name in ((ATTACKER, "attacker"), (DEFENDER, "defender")):
        folder = inputs.work / f"round-{inputs.prepared.round:06d}" / "adapters" / name
        save_adapter(model, role, folder, stage.base.name)
        digests[name] = save_checkpoint(store, folder, meta={"adapter": name, "base": stage.base.name})
    record = AdapterRecord(base=stage.base.name, candidate=candidate, **digests)
    put_adapters(store, inputs.prepared.round, record)
