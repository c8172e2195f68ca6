"""`sparring hooks list|deliver|test`: what was told to whom, what waits, and one hook tried by hand."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from sparring.cli.common import (
    ConfigOption,
    JsonOption,
    LineOption,
    StoreOption,
    finish,
    new_app,
    open_line,
    print_json,
)

if TYPE_CHECKING:
    from sparring.config.hooks import HookConfig
    from sparring.config.run import RunConfig
    from sparring.integrations.deliveries import Delivery
    from sparring.store.base import Store

app = new_app("Hooks: who is told of a decision, and what serves the champion (section `hooks` of the run file).")


@app.command("list")
def list_(
    config: ConfigOption = None, store: StoreOption = None, line: LineOption = None, json: JsonOption = False
) -> None:
    """Show each hook's last delivery: all before it are settled."""

    def action() -> None:
        from sparring.integrations.deliveries import Line, pending

        found, opened = open_line(config, store, line)
        shown = pending(Line(opened, found.line), _configured(found))
        if json:
            print_json([delivery.model_dump() for delivery in shown])
            return
        told = {delivery.hook for delivery in shown}
        print_deliveries(shown)
        for hook in found.hooks:
            if hook.name not in told:
                print(f"{hook.name:<16} nothing yet")

    finish(action)


@app.command()
def deliver(
    config: ConfigOption = None,
    store: StoreOption = None,
    line: LineOption = None,
    given_up: Annotated[bool, typer.Option("--given-up", help="Also the last event, where it was given up.")] = False,
) -> None:
    """Deliver what is due or failed before. Exit code 1 when something still fails."""

    def action() -> int:
        found, opened = open_line(config, store, line)
        _configured(found)
        return deliver_now(found, opened, again=given_up)

    finish(action)


@app.command()
def test(
    name: Annotated[str, typer.Argument(help="The hook.")],
    config: ConfigOption = None,
    store: StoreOption = None,
    line: LineOption = None,
) -> None:
    """Send the newest event to one hook, whatever it is for, and keep no record of it."""

    def action() -> int:
        from sparring.errors import UsageError
        from sparring.integrations.deliveries import Line, send
        from sparring.integrations.events import happened
        from sparring.integrations.http import HookFailed
        from sparring.registry.champion import read_log

        found, opened = open_line(config, store, line)
        hook = next((hook for hook in _configured(found) if hook.name == name), None)
        if hook is None:
            raise UsageError(f"no hook is named {name!r}", hint=f"there are {', '.join(h.name for h in found.hooks)}")
        events = happened(read_log(opened), 0)
        if hook.kind in ("kserve", "mlflow", "model_registry"):
            events = [told for told in events if told.record.champion]
        if not events:
            raise UsageError(f"line {found.line!r} has nothing yet that hook {name} could be told")
        try:
            print(f"{name}: {events[-1].event} of record {events[-1].record.number}: ", end="")
            print(send(Line(opened, found.line), hook, events[-1]))
        except HookFailed as failure:
            print("failed", flush=True)
            print(f"error: {failure.reason}", file=sys.stderr)
            return 1
        return 0

    finish(action)


def deliver_now(config: RunConfig, store: Store, *, again: bool = False) -> int:
    """Delivers and prints what was done; 1 when a hook fails, which is warned of, 0 else, also without hooks."""
    from sparring.integrations.deliveries import Line, deliver

    done = deliver(Line(store, config.line), config.hooks, again=again) if config.hooks else []
    print_deliveries(done)
    failed = sorted({delivery.hook for delivery in done if delivery.state in ("failing", "given_up")})
    if failed:
        hint = "`sparring hooks deliver --given-up` tries again"
        print(f"warning: hooks failed: {', '.join(failed)}; the champion log stands; {hint}", file=sys.stderr)
    return int(bool(failed))


def print_deliveries(shown: Sequence[Delivery]) -> None:
    """One line each."""
    for delivery in shown:
        last = delivery.attempts[-1].detail if delivery.attempts else "no longer how the line stands"
        state = delivery.state.replace("_", " ")
        print(f"{delivery.hook:<16} {delivery.event:<9} record {delivery.record:<4} {state}: {last}")


def _configured(found: RunConfig) -> Sequence[HookConfig]:
    from sparring.errors import UsageError

    if not found.hooks:
        raise UsageError("the run file has no hooks", hint="name them in section hooks, see docs/hooks.md")
    return found.hooks
