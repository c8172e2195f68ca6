"""The commands of `python -m pipelines`; `sparring run` is the same function."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from sparring.cli.common import ConfigOption, LineOption, SetOption, StoreOption, finish, load, new_app
from sparring.errors import SetupError, UsageError

app = new_app("The round as a Kubeflow pipeline.")

SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of everything random.")]
ApprovalOption = Annotated[
    bool, typer.Option("--require-approval", help="A promotion waits for `sparring approve` (gate.require_approval).")
]
GiveUpOption = Annotated[bool, typer.Option("--give-up", help="Give up the open, undecided round and begin the next.")]


@app.command()
def run(
    config: ConfigOption = None,
    store: StoreOption = None,
    line: LineOption = None,
    seed: SeedOption = None,
    override: SetOption = None,
    give_up: GiveUpOption = False,
    require_approval: ApprovalOption = False,
) -> None:
    """Play one round on this machine, or finish the one that was stopped.

    Exit code: 0 decided, 12 the evaluation was invalid, 2 a mistake in settings or data, 1 a fault, 130 stopped.
    """

    def action() -> int:
        _need_kfp()
        from rich.console import Console

        from pipelines.local import play_round

        wanted = [*(override or []), *(["gate.require_approval=true"] if require_approval else [])]
        return play_round(load(config, wanted, store=store, line=line, seed=seed), Console(), abandon=give_up)

    finish(action)


@app.command("compile")
def compile_(
    output: Annotated[Path, typer.Option("--output", "-o", help="YAML file to write.")],
    config: ConfigOption = None,
    override: SetOption = None,
    kubernetes_manifest: Annotated[
        bool, typer.Option("--kubernetes-manifest", help="As Pipeline and PipelineVersion resources, for GitOps.")
    ] = False,
) -> None:
    """Write the pipeline that Kubeflow runs, with the pods of section `cluster` of the run file."""
    finish(lambda: _compile(output, config, override, kubernetes_manifest))


def _need_kfp() -> None:
    if find_spec("kfp") is None:
        raise SetupError("kfp is not installed", hint="install sparring[pipelines], or use `make setup`")


def _compile(output: Path, config: Path | None, override: list[str] | None, as_manifest: bool) -> None:
    _need_kfp()
    from pipelines.package import manifest, package

    if output.suffix not in (".yaml", ".yml"):
        raise UsageError(f"output {str(output)!r} must end in .yaml")
    if not output.absolute().parent.is_dir():
        raise UsageError(f"output folder {str(output.absolute().parent)!r} does not exist")
    cluster = load(config, override).cluster
    output.write_text(manifest(cluster) if as_manifest else package(cluster).text, encoding="utf-8")
    print(f"wrote {output}")
