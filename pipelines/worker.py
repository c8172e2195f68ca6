"""The process that holds kfp's local runner: it prints what kfp and the steps print, the parent draws the screen.

A process of its own, because kfp's runner replaces `print` and the root logger and prints to standard output, and
because one signal to its group then ends every step.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from kfp import local

from components.report.component import report
from pipelines.pipeline import make_pipeline
from sparring.steps.guard import end_with_runner


def main() -> None:
    """Runs the whole round, or only the report of round `--report`. Raises what kfp raises: the log shows it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", required=True)
    parser.add_argument("--root", required=True)
    parser.add_argument("--report", default="")
    options = parser.parse_args()
    end_with_runner()
    _call_python_by_name()
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=options.root)
    if options.report:
        report(run=options.run, round=options.report)
    else:
        make_pipeline()(run=options.run)


def _call_python_by_name() -> None:
    """kfp puts `sys.executable` unquoted into a shell line: with a blank in it, only a name on the PATH works."""
    folder = Path(sys.executable).parent
    if any(letter.isspace() for letter in str(folder)) and (folder / "python3").exists():
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"
        sys.executable = "python3"


if __name__ == "__main__":
    main()
