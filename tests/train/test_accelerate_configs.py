"""The shipped settings of several processes, read by accelerate itself, and the shipped run file of the 8B recipe."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

from sparring.config.load import load_run

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
KINDS = {
    "ddp": DistributedType.MULTI_GPU,
    "fsdp2": DistributedType.FSDP,
    "zero2": DistributedType.DEEPSPEED,
    "zero3": DistributedType.DEEPSPEED,
}


def test_no_settings_are_shipped_that_nothing_reads() -> None:
    assert {path.stem for path in (EXAMPLES / "accelerate").iterdir()} == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_accelerate_reads_its_settings(name: str) -> None:
    path = EXAMPLES / "accelerate" / f"{name}.yaml"
    found = load_config_from_file(str(path))
    assert (found.distributed_type, found.num_processes, found.mixed_precision) == (KINDS[name], 8, "bf16")
    known = {action.dest for action in launch_command_parser()._actions}
    for section in (found.fsdp_config, found.deepspeed_config):
        assert {key for key in section if key not in known} <= {"deepspeed_multinode_launcher"}
    if name.startswith("zero"):
        assert found.deepspeed_config["zero_stage"] == int(name[-1])


def test_the_fsdp_settings_make_accelerate_s_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `accelerate launch` hands them on: by environment variables, in upper case."""
    settings = yaml.safe_load((EXAMPLES / "accelerate" / "fsdp2.yaml").read_text())["fsdp_config"]
    for key, value in settings.items():
        name = "FSDP_" + key.removeprefix("fsdp_").upper()
        monkeypatch.setitem(os.environ, name, str(value).lower() if isinstance(value, bool) else str(value))
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
    assert str(plugin.state_dict_type).endswith("FULL_STATE_DICT") and not plugin.activation_checkpointing


def test_the_shipped_8b_run_file_is_sound() -> None:
    config = load_run(EXAMPLES / "selfredteam-8b.yaml")
    assert (config.selfplay.games, config.selfplay.rollouts, config.game.cot) == (128, "vllm_server", True)
