"""Where step selfplay trains: in its own process, or in a TrainJob."""

from __future__ import annotations

import os
from typing import Final

EXECUTOR_VARIABLE: Final = "SPARRING_EXECUTOR"
"""In the environment of step selfplay: `trainjob` has it make one."""


def play_elsewhere(run: str, round_number: str) -> None:
    """Has a TrainJob play step selfplay where one is asked for, and returns when its result is in the store.

    Raises ClusterError, BusyError.
    """
    if os.environ.get(EXECUTOR_VARIABLE) == "trainjob":
        from pipelines.trainjob import play_as_job  # the kubernetes client: a laptop need not load it
        from sparring.steps.guard import end_with_runner

        end_with_runner()
        play_as_job(run, round_number)
