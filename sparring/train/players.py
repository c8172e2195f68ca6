"""Who plays a step: the trained policy as the settings make it, and an opponent in some of the slots."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from transformers import AutoConfig

from sparring.policy.load import load_policy
from sparring.train.league import NOBODY, Cast, Opponents, OpposedRoles, cast
from sparring.train.roles import Begun, Roles, SharedRoles
from sparring.train.trainer import SelfPlayTrainer
from sparring.train.vllm import VllmRoles

if TYPE_CHECKING:
    from sparring.train.session import Session


def trainer_of(session: Session) -> Callable[..., Any]:
    """The trainer's class, with the arguments that only it has. PEFT is imported when adapters are asked for."""
    if session.config.adapters == "none":
        return SelfPlayTrainer
    from sparring.train.adapter_trainer import AdapterTrainer
    from sparring.train.adapters import lora

    depth = AutoConfig.from_pretrained(session.start).get_text_config().num_hidden_layers
    adapter = lora(session.config.lora, depth)
    if session.config.adapters == "shared":
        return partial(SelfPlayTrainer, peft_config=adapter)
    return partial(AdapterTrainer, peft_config=adapter, begun=session.begun or Begun(), seed=session.seed)


class Players:
    """The players of every step of a session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._opponents = session.opponents

    def of_step(self, trainer: Any, step: int) -> tuple[Roles, Cast]:
        """Who samples, and the slots whose role an opponent plays."""
        session, own = self._session, self._own(trainer)
        # the adapter of a role that is not trained stays as it began
        if session.config.opponent == "current" or (
            session.config.opponent == "start" and session.config.adapters == "per_role"
        ):
            return own, NOBODY
        if self._opponents is None:
            self._opponents = Opponents(["start"], lambda number, role: _start(session, trainer))
        kinds = [slot.kind for slot in session.player.schedule.slots(step)]
        seats = cast(session.config, kinds, len(self._opponents.names), session.seed, step)
        return OpposedRoles(own, self._opponents, seats, session.player.chat.eos), seats

    def _own(self, trainer: Any) -> Roles:
        eos, adapters = self._session.player.chat.eos, self._session.config.adapters
        adapted = None if adapters == "none" else trainer.accelerator.unwrap_model(trainer.model)
        if trainer.use_vllm:
            return VllmRoles(trainer, eos, adapted)
        if adapted is None:
            return SharedRoles(trainer.model, eos)
        from sparring.train.adapters import AdapterRoles

        return AdapterRoles(adapted, eos)


def _start(session: Session, trainer: Any) -> Any:
    """The policy that the round began with: the KL reference, if there is one."""
    if trainer.ref_model is not None:
        return trainer.accelerator.unwrap_model(trainer.ref_model).eval()
    return load_policy(session.start).model
