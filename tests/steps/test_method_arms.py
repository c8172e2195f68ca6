"""The arms of `benchmarks method`: run files that a user could write, at equal generated tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks._method_chain import ARMS, WARM, Chain, tokens_a_step


@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm not in ("base", WARM)])
def test_an_arm_is_a_sound_run_file_and_writes_as_many_tokens(arm: str, tmp_path: Path) -> None:
    chain = Chain(str(tmp_path), rounds=2, steps=8)
    config, against = chain.config(arm, 0), chain.config("self-play", 0)
    apart = abs(config.selfplay.steps * tokens_a_step(config) - 8 * tokens_a_step(against))
    assert apart <= tokens_a_step(config) / 2
