"""LoRA adapters on a frozen base (PEFT): one that both roles share, or one a role.

Of a shared one nothing is special: it is trained as the weights would be, and the candidate has it merged. With one a
role:

    base ──┬── attacker's adapter ── writes attacks          stored beside the candidate, never served
           └── defender's adapter ── answers                 base + it = the candidate, plain safetensors

Both start as the base itself (LoRA's B is zero). A role's rows pass through its own adapter, so that no gradient of one
role reaches the other's; with adapters off the model is the base, which the KL penalty refers to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sparring.config.roles import LoraConfig as LoraSection
from sparring.errors import ModelError
from sparring.policy.generate import Sampled
from sparring.train.ranks import generate_over_ranks
from sparring.train.roles import ATTACKER, DEFENDER, Begun

NAMES: Final = {ATTACKER: "attacker", DEFENDER: "default"}
"""PEFT's names: TRL makes and looks for `default`."""
WEIGHTS: Final = "adapter_model.safetensors"


def lora(section: LoraSection, depth: int) -> Any:
    """PEFT's description of an adapter on a model of `depth` layers. No dropout: the sampled and the trained policy
    must be one.
    """
    layers = span(section.layers, depth)
    return LoraConfig(
        r=section.rank,
        lora_alpha=section.alpha,
        target_modules=list(section.targets),
        layers_to_transform=list(layers) if len(layers) < depth else None,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )


def span(part: tuple[float, float], depth: int) -> range:
    """The layers in `part` of a model's `depth` of layers; at least one.

    >>> span((0.45, 0.67), 30), span((0.99, 1.0), 4)
    (range(14, 20), range(3, 4))
    """
    low = min(round(part[0] * depth), depth - 1)
    return range(low, max(round(part[1] * depth), low + 1))


def fit_adapters(model: Any, begun: Begun, seed: int) -> None:
    """Gives a PEFT model that has the defender's adapter the attacker's too, both trainable.

    Raises ModelError when an adapter to go on from does not fit the model.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        model.add_adapter(NAMES[ATTACKER], deepcopy(model.peft_config[NAMES[DEFENDER]]))
    for role, folder in ((ATTACKER, begun.attacker), (DEFENDER, begun.defender)):
        if folder:
            load_adapter(model, role, folder)
    act(model, DEFENDER)


def act(model: Any, role: int) -> None:
    """From now on passes go through `role`'s adapter; both stay trainable, whoever acts."""
    for layer in _layers(model):
        layer.set_adapter([NAMES[role]])
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.requires_grad_(True)


@contextmanager
def acting(model: Any, role: int) -> Iterator[None]:
    """Passes inside go through `role`'s adapter, afterwards through the defender's again."""
    act(model, role)
    try:
        yield
    finally:
        act(model, DEFENDER)


def adapters_off(model: Any) -> bool:
    """Whether the model is its base at the moment (PEFT's `disable_adapter`)."""
    return any(layer.disable_adapters for layer in _layers(model))


def unused(model: Any) -> Tensor:
    """Zero, with a gradient of zero to every adapter: several processes wait for one of each in a backward pass."""
    return torch.stack([p.sum() * 0.0 for name, p in model.named_parameters() if ".lora_" in name]).sum()


@contextmanager
def plain(model: Any, role: int) -> Iterator[Any]:
    """The model without PEFT, its weights those of the base plus `role`'s adapter (or the one that there is); as it
    was before, afterwards.

    The base's tensors are put aside and back, never subtracted from: nothing drifts by rounding.
    """
    base = model.get_base_model()
    places = [(name, layer) for name, layer in base.named_modules() if isinstance(layer, BaseTunerLayer)]
    aside = []
    try:
        with torch.no_grad():
            for name, layer in places:
                inner, weight = layer.get_base_layer(), layer.get_base_layer().weight
                aside.append((name, layer, weight.data))
                own = NAMES[role] if NAMES[role] in layer.lora_A else NAMES[DEFENDER]
                weight.data = weight.data + layer.get_delta_weight(own).to(weight.dtype)
                base.set_submodule(name, inner)
        yield base
    finally:
        for name, layer, data in aside:
            layer.get_base_layer().weight.data = data
            base.set_submodule(name, layer)


def save_adapter(model: Any, role: int, folder: Path, base: str) -> None:
    """Writes one adapter in PEFT's format, without a path of this machine; `base` is its base's digest."""
    folder.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(model, adapter_name=NAMES[role])
    save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, folder / WEIGHTS)
    config = model.peft_config[NAMES[role]]
    kept, config.base_model_name_or_path, config.inference_mode = config.base_model_name_or_path, base, True
    try:
        config.save_pretrained(folder)
    finally:
        config.base_model_name_or_path, config.inference_mode = kept, False


def load_adapter(model: Any, role: int, folder: Path) -> None:
    """Puts saved weights into `role`'s adapter. Raises ModelError when they are of another shape."""
    try:
        result = set_peft_model_state_dict(model, load_file(folder / WEIGHTS), adapter_name=NAMES[role])
    except (OSError, RuntimeError, SafetensorError) as error:
        raise _unfit(folder, str(error).splitlines()[-1].strip()) from error
    missing = [name for name in result.missing_keys if f".{NAMES[role]}." in name]
    if missing or result.unexpected_keys:
        raise _unfit(folder, f"{(missing or result.unexpected_keys)[0]} is in one of them only")


def merged(model: Any, folder: Path) -> Any:
    """A plain model with a saved adapter added to its weights. Raises ModelError when it does not fit."""
    try:
        return PeftModel.from_pretrained(model, folder).merge_and_unload().eval()
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ModelError(f"the adapter in {folder} does not fit its base: {str(error).splitlines()[-1]}") from error


def _unfit(folder: Path, why: str) -> ModelError:
    return ModelError(
        f"the adapter in {folder} does not fit selfplay.lora: {why}",
        hint="keep rank and targets from round to round, or start a new line",
    )


def _layers(model: Any) -> list[Any]:
    return [layer for layer in model.modules() if isinstance(layer, BaseTunerLayer)]


@dataclass(frozen=True)
class AdapterRoles:
    """Each role is played by its own adapter, or by the one that both share; `model` is PEFT's, `eos` ends a row."""

    model: Any
    eos: frozenset[int]

    def sample(
        self,
        role: int,
        prompts: Sequence[Sequence[int]],
        *,
        slots: Sequence[int],
        max_new_tokens: int,
        temperature: float,
        seed: int,
    ) -> Sampled:
        """See `Roles`."""
        with plain(self.model, role) as merged:
            return generate_over_ranks(
                merged, prompts, eos=self.eos, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
            )
