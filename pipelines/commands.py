"""The commands of `python -m pipelines`; `sparring run` is the same function as `run`."""

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
PreflightOption = Annotated[
    bool, typer.Option("--preflight/--no-preflight", help="Ask Kubernetes and the judges first what would be missing.")
]
NameOption = Annotated[str | None, typer.Option("--name", help="Name of the schedule; else sparring-LINE.")]
PatienceOption = Annotated[
    float, typer.Option("--minutes", min=0, help="How long to wait for a run in flight before a schedule is deleted.")
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


@app.command()
def submit(
    config: ConfigOption = None,
    store: StoreOption = None,
    line: LineOption = None,
    seed: SeedOption = None,
    override: SetOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Only if a round is open. (Any run finishes an open round first.)")
    ] = False,
    give_up: GiveUpOption = False,
    preflight: PreflightOption = True,
) -> None:
    """Play one round on the cluster, or finish the one that was stopped; prints the run's id."""

    def action() -> None:
        _need_kfp()
        from pipelines.cluster import submit

        chosen = load(config, override, store=store, line=line, seed=seed)
        submit(chosen, _say, resume=resume, abandon=give_up, looks=preflight)

    finish(action)


@app.command()
def schedule(
    cron: Annotated[
        str | None, typer.Argument(help="Five fields: minute hour day month weekday; else cluster.schedule.")
    ] = None,
    config: ConfigOption = None,
    store: StoreOption = None,
    line: LineOption = None,
    override: SetOption = None,
    name: NameOption = None,
    reconcile: Annotated[
        bool, typer.Option("--reconcile", help="Make it what the run file says: without cluster.schedule, remove it.")
    ] = False,
    minutes: PatienceOption = 60.0,
    preflight: PreflightOption = True,
) -> None:
    """Play rounds on the cluster by the clock, one at a time. Again with the same settings it does nothing."""

    def action() -> None:
        _need_kfp()
        from pipelines import cluster

        chosen, patience = load(config, override, store=store, line=line), minutes * 60
        if reconcile and cron is None and chosen.cluster.schedule is None:
            cluster.unschedule(chosen, _say, name=name, patience=patience)
        else:
            cluster.schedule(chosen, _say, cron=cron, name=name, looks=preflight, patience=patience)

    finish(action)


@app.command()
def unschedule(
    config: ConfigOption = None,
    line: LineOption = None,
    override: SetOption = None,
    name: NameOption = None,
    minutes: PatienceOption = 60.0,
) -> None:
    """Stop playing by the clock: disable the schedule, wait for a run in flight, delete it."""

    def action() -> None:
        _need_kfp()
        from pipelines.cluster import unschedule

        unschedule(load(config, override, line=line), _say, name=name, patience=minutes * 60)

    finish(action)


@app.command("list")
def list_(
    config: ConfigOption = None,
    override: SetOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Newest runs shown.")] = 10,
) -> None:
    """Show schedules and the newest runs, each with its round and decision from the store."""

    def action() -> None:
        _need_kfp()
        from pipelines.cluster import overview

        overview(load(config, override), _say, limit=limit)

    finish(action)


@app.command()
def wait(
    run: Annotated[str, typer.Argument(help="Id of the run, as `submit` prints it.")],
    config: ConfigOption = None,
    override: SetOption = None,
    minutes: Annotated[float | None, typer.Option("--minutes", min=0, help="Give up waiting after this time.")] = None,
) -> None:
    """Follow a run to its end; for a failure, show why. Exit code as of `run`."""

    def action() -> int:
        _need_kfp()
        from rich.console import Console

        from pipelines.follow import wait

        return wait(load(config, override), run, Console(), patience=None if minutes is None else minutes * 60)

    finish(action)


def _say(text: str) -> None:
    print(text, flush=True)


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
    text = manifest(cluster) if as_manifest else package(cluster).text
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"output {str(output)!r} cannot be written: {error.strerror}") from error
    print(f"wrote {output}")
