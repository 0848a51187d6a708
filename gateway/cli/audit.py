"""`gateway audit`: who changed what and why, and whether anybody has tampered with the record of it."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli import show
from gateway.cli.client import DEFAULT_SERVER, AsJson, Client, Server, answered, shown
from gateway.cli.failure import REFUSED

app = typer.Typer(
    name="audit", no_args_is_help=True, rich_markup_mode=None, help="Who changed what and why: read it, verify it."
)

PATIENCE_S = 300.0
"""To verify reads every entry there ever was."""


@app.command("log")
def log(
    limit: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="At most.")] = 20,
    before: Annotated[
        int | None, typer.Option(min=1, metavar="SEQ", help="Only entries older than that one.", show_default=False)
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="MODEL", help="Only of one model.", show_default=False)] = None,
    action: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only route.put, version.retire, ..., or all of route.", show_default=False),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="With what was before and after.")] = False,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Changes, the newest first."""
    with answered():
        answer = Client(server).get("v1", "audit", limit=limit, before=before, model=model, action=action)
        if as_json:
            return show.print_json(answer)
        entries = answer["entries"]
        if not entries:
            print("no entry" if model is None and action is None and before is None else "no such entry")
            return
        columns = [">entry", "when", "who", "what", "of", "why"]
        rows = [
            [entry["seq"], show.when(entry["at"]), entry["actor"], entry["action"], entry["subject"], entry["reason"]]
            for entry in entries
        ]
        if full:
            columns += ["before", "after"]
            for row, entry in zip(rows, entries, strict=True):
                row += ["" if entry[side] is None else show.value(entry[side]) for side in ("before", "after")]
        show.print_table(*columns, rows=rows)
        if len(entries) == limit and entries[-1]["seq"] > 1:
            print(f"older ones: --before {entries[-1]['seq']}")


@app.command("verify")
def verify(
    head: Annotated[
        str | None,
        typer.Option(
            metavar="COUNT:HASH", help="A head that you noted elsewhere: it must be in it.", show_default=False
        ),
    ] = None,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Check that nobody has tampered with the log.

    Every entry is checked against the chain: edited, inserted, removed, reordered, cut off at the end. The server
    also keeps the last head beside its database. For a proof that does not rest on that machine, note the head that
    this prints, and give it with --head the next time. The exit code is 1 when something is wrong.
    """
    with answered():
        answer = Client(server).get("v1", "audit", "verify", patience_s=PATIENCE_S, head=head)
        if as_json:
            show.print_json(answer)
        elif answer["ok"]:
            print(f"ok: {show.count(answer['n'], 'entry').replace('entrys', 'entries')}, each as it was written")
            print(f"head {shown(answer['head'])}")
        else:
            print(f"NOT ok: {shown(answer['fault'])}")
            print(f"head {shown(answer['head'])}")
        if not answer["ok"]:
            raise typer.Exit(REFUSED)
