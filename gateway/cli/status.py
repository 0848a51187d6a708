"""`gateway status`: the whole gateway at a glance, once or live."""

from __future__ import annotations

import json
import signal
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli import show
from gateway.cli.client import DEFAULT_SERVER, AsJson, Client, Server, answered, shown
from gateway.cli.failure import REFUSED, Refused

if TYPE_CHECKING:
    from rich.console import RenderableType


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Keep it on the screen until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Between two looks of --watch.")] = 1.0,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Workers, store and routes: what is there, and what is wrong.

    The exit code is 1 when something is wrong. With --watch --json, one line for each look.
    """
    from gateway.errors import ConfigError

    with answered():
        client = Client(server)
        if watch and not as_json and not sys.stdout.isatty():
            raise ConfigError("--watch: draws on a terminal, and this is none; take --watch --json for lines")
        if watch:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # who was started with & has it ignored
            try:
                _lines(client, every) if as_json else _live(client, every)
            except KeyboardInterrupt:
                raise typer.Exit from None
        answer = _look(client)
        if as_json:
            show.print_json(answer)
        else:
            show.console().print(_picture(answer))
        if not answer["ok"]:
            raise typer.Exit(REFUSED)


def _look(client: Client) -> dict[str, Any]:
    answer: dict[str, Any] = client.get("v1", "status")
    try:
        answer["routes"] = client.get("v1", "routes")["routes"]
    except Refused:  # the store is away: said in `wrong`
        answer["routes"] = []
    return answer


def _lines(client: Client, every_s: float) -> None:
    while True:
        try:
            line = _look(client)
        except Refused as error:
            line = {"ok": False, "wrong": [str(error)]}
        print(json.dumps(line, ensure_ascii=False), flush=True)
        time.sleep(every_s)


def _live(client: Client, every_s: float) -> None:
    """A server that goes away is shown as that, and comes back by itself."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    last: RenderableType = Text("")
    with Live(console=show.console(), screen=False, auto_refresh=False) as live:
        while True:
            try:
                last = _picture(_look(client))
                live.update(last, refresh=True)
            except Refused as error:
                since = time.strftime("%H:%M:%S")
                live.update(Group(last, Text(f"{since} {error}", style="bold red")), refresh=True)
            time.sleep(every_s)


def _picture(answer: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    control, store, workers = answer["control"], answer["store"], answer["workers"]
    n_live = sum(worker["is_live"] for worker in workers)
    parts: list[RenderableType] = []
    if answer["ok"]:
        parts.append(Text(f"all is well at {time.strftime('%H:%M:%S')}", style="bold green"))
    else:
        parts += [Text(f"wrong: {shown(each)}", style="bold red") for each in answer["wrong"]]
    kept = "; not kept when it stops" if store["is_ephemeral"] else ""
    leads = ", leads" if control["leads"] else ""
    parts.append(
        Text(
            f"gateway {answer['gateway']}: {show.count(n_live, 'worker')}, {show.count(answer['n_models'], 'model')}, "
            f"{show.count(answer['n_versions_ready'], 'version')} ready\n"
            f"control plane: up for {_span(control['uptime_s'])}{leads}\n"
            f"store {shown(store['name'])}: {'up' if store['is_up'] else 'DOWN'}, revision {store['revision']}{kept}"
        )
    )
    parts.append(
        show.table(
            "worker", ">pid", "state", ">revision", ">up", ">silent", "faults", rows=[_worker(each) for each in workers]
        )
    )
    rows = [
        (each["model"], each["generation"], show.summary(each["route"]), each["actor"], show.when(each["at"]))
        for each in answer["routes"]
    ]
    parts.append(show.table("model", ">generation", "route", "by", "since", rows=rows))
    return Group(*parts)


def _worker(worker: dict[str, Any]) -> tuple[Any, ...]:
    state = "READY" if worker["is_ready"] else "not ready" if worker["is_live"] else "gone"
    faults = "; ".join(f"{model}: {fault}" if model else fault for model, fault in worker["faults"].items())
    up_s = worker["seen_at"] - worker["started_at"]
    return (
        worker["worker"],
        worker["pid"],
        state,
        worker["revision"],
        _span(up_s),
        f"{worker['silent_s']:.1f} s",
        faults,
    )


def _span(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
