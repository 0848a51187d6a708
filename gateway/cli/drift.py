"""`gateway drift`: how far traffic is from the profile, column by column, the worst first; and what was found."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli import show
from gateway.cli.client import DEFAULT_SERVER, Actor, AsJson, Client, Reason, Server, answered, shown

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer(
    name="drift",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="How far traffic is from what a model was built for.",
)

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.", show_default=False)]
Version = Annotated[
    str | None,
    typer.Option("--version", metavar="N", help="[default: all that have a profile]", show_default=False),
]
Number = Annotated[str, typer.Argument(metavar="ALARM", help="As gateway drift alarms shows it.", show_default=False)]
MAX_LINES = 20
"""Columns on a screen; --all has the rest."""
SPARK_CELLS = 16
TREND_CELLS = 20
_STATUS = {"alarm": "bold red", "moved": "yellow", "ok": "green", "waiting": "dim"}
_SIDES = {"input": "", "output": "output ", "schema": ""}


@app.command("show")
def show_drift(
    model: Model,
    version: Version = None,
    all_columns: Annotated[bool, typer.Option("--all", help="All columns, not the worst alone.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also draw baseline beside now: .png or .svg.", show_default=False),
    ] = None,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Baseline beside now, the worst column first.

    \b
    score    distance in tolerances: 1 is what is tolerated
    trend    the scores of the last windows, the newest to the right
    psi      population stability index over 10 minutes and an hour, corrected for chance
    """
    with answered():
        answer = _look(Client(server), model, version)
        if plot is not None:
            from gateway.cli.driftplot import draw

            draw([each["report"] for each in answer["versions"]], plot)
            typer.echo(f"wrote {plot}", err=True)
        if as_json:
            return show.print_json(answer)
        for each in answer["versions"]:
            show.console().print(_picture(each, None if all_columns else MAX_LINES))


@app.command("watch")
def watch(
    model: Model,
    version: Version = None,
    every: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Between two looks.")] = 2.0,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Keep it on the screen until Ctrl-C; with --json, a line for each look."""
    from gateway.errors import ConfigError

    with answered():
        client = Client(server)
        if not as_json and not sys.stdout.isatty():
            raise ConfigError("drift watch: draws on a terminal, and this is none; take --json for lines")
        try:
            if as_json:
                _lines(client, model, version, every)
            else:
                _live(client, model, version, every)
        except KeyboardInterrupt:
            raise typer.Exit from None


@app.command("alarms")
def list_alarms(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Only of this model.", show_default=False)
    ] = None,
    closed: Annotated[bool, typer.Option("--closed", help="Those that are over, too.")] = False,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """What was found, the newest first."""
    with answered():
        answer = Client(server).get("v1", "alarms", model=model)
        alarms = [each for each in answer["alarms"] if closed or each["state"] != "closed"]
        if as_json:
            return show.print_json({"alarms": alarms})
        if not alarms:
            print("no alarm" if closed else "no open alarm; --closed shows those that are over")
            return
        rows = [
            (each["id"], each["state"], f"{each['model']}/{each['version']}", each["side"], show.when(each["since"]),
             each["sentence"])
            for each in alarms
        ]  # fmt: skip
        show.print_table("alarm", "state", "version", "side", "since", "what", rows=rows)


@app.command("acknowledge")
def acknowledge(
    alarm: Number, reason: Reason = "", actor: Actor = "", server: Server = DEFAULT_SERVER, as_json: AsJson = False
) -> None:
    """Say that somebody looks after it; it stays, and closes by itself when traffic is back."""
    _move(Client(server, actor), alarm, "acknowledge", reason, as_json)


@app.command("close")
def close(
    alarm: Number, reason: Reason = "", actor: Actor = "", server: Server = DEFAULT_SERVER, as_json: AsJson = False
) -> None:
    """Say that what is seen is normal.

    It is tolerated from now on, until the version has another profile.
    """
    _move(Client(server, actor), alarm, "close", reason, as_json)


def _move(client: Client, alarm: str, wish: str, reason: str, as_json: bool) -> None:
    with answered():
        answer = client.post("v1", "alarms", alarm, wish, body={"reason": reason})
        if as_json:
            return show.print_json(answer)
        columns = ", ".join(shown(finding["column"]) for finding in answer["findings"])
        where = f"{shown(answer['model'])}/{shown(answer['version'])}"
        print(f"alarm {shown(answer['id'])} of {where} is {answer['state']}: {columns}")
        if answer["accepted"]:
            print("  what was seen is tolerated from now on; build a new profile when it stays so")


def _look(client: Client, model: str, version: str | None) -> dict[str, Any]:
    if version is None:
        answer: dict[str, Any] = client.get("v1", "drift", model)
        return answer
    return {"versions": [client.get("v1", "drift", model, version)]}


def _lines(client: Client, model: str, version: str | None, every_s: float) -> None:
    while True:
        print(json.dumps(_look(client, model, version), ensure_ascii=False), flush=True)
        time.sleep(every_s)


def _live(client: Client, model: str, version: str | None, every_s: float) -> None:
    """A server that goes away is shown as that, and comes back by itself."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from gateway.cli.failure import Refused

    last: RenderableType = Text("")
    with Live(console=show.console(), screen=False, auto_refresh=False) as live:
        while True:
            try:
                versions = _look(client, model, version)["versions"]
                last = Group(*(_picture(each, MAX_LINES) for each in versions))
                live.update(last, refresh=True)
            except Refused as error:
                live.update(Group(last, Text(f"{time.strftime('%H:%M:%S')} {error}", style="bold red")), refresh=True)
            time.sleep(every_s)


def _picture(found: dict[str, Any], limit: int | None) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    report = found["report"]
    has_alarm = any(column["status"] == "alarm" for column in report["columns"])
    has_moved = any(column["status"] == "moved" for column in report["columns"])
    colour = "bold red" if has_alarm else "yellow" if has_moved else "bold green"
    until = time.strftime("%H:%M:%S", time.localtime(report["judged_until"])) if report["judged_until"] else "never"
    source = "" if report["source"] == "data" else " learnt from live requests"
    head = Text(f"{shown(report['model'])} version {shown(report['version'])}: ")
    head.append(shown(report["sentence"]), style=colour)
    parts: list[RenderableType] = [
        head,
        Text(
            f"profile of {report['rows']:,} rows{source}; {report['requests']['1m']:,} requests in the last minute, "
            f"{report['requests']['1h']:,} in the last hour; judged until {until}; at most one false page in "
            f"{report['budget_days']:g} days"
        ),
    ]
    for alarm in found["alarms"]:
        parts.append(
            Text(
                f"{alarm['side']} alarm {shown(alarm['id'])} is {alarm['state']}, since {show.when(alarm['since'])}: "
                f"{shown(alarm['sentence'])}",
                style="red" if alarm["state"] == "open" else "yellow",
            )
        )
    if all(column["status"] == "waiting" for column in report["columns"]):
        return Group(*parts, Text(""))
    columns = report["columns"][:limit]
    parts.append(_table(columns))
    hidden = len(report["columns"]) - len(columns)
    if hidden:
        parts.append(Text(f"and {hidden} more columns; --all shows them"))
    return Group(*parts)


def _table(columns: list[dict[str, Any]]) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("column", "", "baseline", "now", "trend", ">score", ">psi 10m", ">1h", ">missing", "since", "what"):
        to_the_right = name.startswith(">")
        is_drawn = name in ("baseline", "now", "trend")
        made.add_column(
            name.lstrip(">"), justify="right" if to_the_right else "left", overflow="fold", no_wrap=is_drawn
        )
    for column in columns:
        style = _STATUS[column["status"]]
        base, now = _sparks(column)
        made.add_row(
            Text(shown(_SIDES[column["side"]] + column["name"]), style="bold" if column["status"] == "alarm" else ""),
            Text(column["status"], style=style),
            Text(base, style="dim"),
            Text(now, style=style if column["status"] in ("alarm", "moved") else ""),
            Text(_trend(column["trend"]), style=style),
            _number(column["score"]),
            _psi(column, "10m"),
            _psi(column, "1h"),
            _share(column),
            time.strftime("%H:%M", time.localtime(column["since"]))
            if column["status"] == "alarm" and column["since"]
            else "",
            Text(shown(column["sentence"])),
        )
    return made


def _sparks(column: dict[str, Any]) -> tuple[str, str]:
    """Baseline and now on one scale."""
    from gateway.monitoring.drawing import sparkline

    base, now = (_fewer(column[side]) for side in ("shape_baseline", "shape_now"))
    highest = max([*base, *now], default=0.0)
    return sparkline(base, highest), sparkline(now, highest)


def _fewer(shares: list[float]) -> list[float]:
    """Neighbours together, the outer cells by themselves: what is out of range must show."""
    if len(shares) <= SPARK_CELLS:
        return shares
    inner = shares[1:-1]
    step = -(-len(inner) // (SPARK_CELLS - 2))
    return [shares[0], *(sum(inner[at : at + step]) for at in range(0, len(inner), step)), shares[-1]]


def _trend(scores: list[float | None]) -> str:
    """Three tolerances fill the height: beyond it is far in any case."""
    from gateway.monitoring.drawing import sparkline

    return sparkline([max(score or 0.0, 0.0) for score in scores[-TREND_CELLS:]], 3.0)


def _psi(column: dict[str, Any], window: str) -> str:
    found = column["windows"][window]
    return _number(found["psi"]) + ("" if found["is_enough"] or found["psi"] is None else "?")


def _share(column: dict[str, Any]) -> str:
    level = column["windows"]["10m"]["level"]
    return f"{100 * level['missing']:.3g} %" if level["missing"] else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"
