"""`gateway route`: who answers a model's requests, and changing that while traffic flows."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli import show
from gateway.cli.client import DEFAULT_SERVER, Actor, AsJson, Client, Reason, Server, ServerRefused, answered, shown
from gateway.cli.failure import REFUSED, Refused

app = typer.Typer(
    name="route",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Who answers a model's requests: show it, change it, take it back.",
)

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.", show_default=False)]
Expect = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Refuse unless generation N is in force. [default: the one that is]", show_default=False
    ),
]
Supersede = Annotated[
    bool, typer.Option("--supersede", help="Also while a rollout has the route in hand: that rollout ends.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check it and show the difference; change nothing.")]


@app.command("show")
def show_route(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="One model's. [default: all]", show_default=False)
    ] = None,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """What is in force: all routes, or one and who has it."""
    with answered():
        client = Client(server)
        if model is None:
            answer = client.get("v1", "routes")
            if as_json:
                return show.print_json(answer)
            rows = [
                (each["model"], each["generation"], show.summary(each["route"]), each["actor"], show.when(each["at"]))
                for each in answer["routes"]
            ]
            return show.print_table("model", ">generation", "route", "by", "since", rows=rows)
        answer = client.get("v1", "routes", model)
        if as_json:
            return show.print_json(answer)
        print(_heading(answer))
        print(_yaml(answer["route"]), end="")
        show.print_acknowledged(answer)
        for worker, fault in answer["faults"].items():
            print(f"  in {shown(worker)}: {shown(fault)}")


@app.command("set")
def set_route(
    model: Model,
    versions: Annotated[
        list[str] | None,
        typer.Argument(metavar="VERSION=PERCENT", help="Who answers; one version alone is all.", show_default=False),
    ] = None,
    shadow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VERSION[=PERCENT]|none",
            help="Send it copies, compare its answers; callers see none of it. Several: repeat.",
            show_default=False,
        ),
    ] = None,
    sticky: Annotated[
        str | None,
        typer.Option(
            metavar="header:NAME|parameter:NAME|none",
            help="Equal values get the same version.",
            show_default=False,
        ),
    ] = None,
    fallback: Annotated[
        str | None,
        typer.Option(metavar="VERSION|none", help="Who answers when the one that was drawn fails.", show_default=False),
    ] = None,
    pinned: Annotated[
        str | None,
        typer.Option(metavar="obey|forbid", help="What of callers that name a version.", show_default=False),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="TIME|none", help="How long a version without traffic stays warm: 30min.", show_default=False
        ),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(metavar="FILE|-", help="The whole route, YAML or JSON, instead of the words.", show_default=False),
    ] = None,
    expect: Expect = None,
    dry_run: DryRun = False,
    supersede: Supersede = False,
    reason: Reason = "",
    actor: Actor = "",
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Change a model's route, in all workers at once. What you do not name stays as it is.

    \b
    gateway route set fraud 1=95 2=5             5 % to version 2
    gateway route set fraud 2                    everything to version 2
    gateway route set fraud --shadow 2           version 2 sees a copy of everything
    gateway route set fraud --shadow none        no more
    gateway route set fraud --sticky header:x-user --fallback 1
    gateway route set fraud --file route.yaml    rules, arms and bounds: all of it

    A version that is not loaded is loaded and warmed first. The answer says which workers have the new route; with one
    that has not, the exit code is 1. If somebody else changed it meanwhile, nothing happens and you see what they did.
    """
    from gateway.cli import routewords
    from gateway.errors import ConfigError

    with answered():
        words = (versions or (), shadow or (), sticky, fallback, pinned, keep)
        if file is not None and any(words):
            raise ConfigError("--file holds the whole route: leave VERSION=PERCENT and the flags for its parts out")
        if file is None and not any(words):
            raise ConfigError(
                "nothing to change: give VERSION=PERCENT such as 1=95 2=5, a flag, or --file FILE (--help)"
            )
        client = Client(server, actor)
        if file is not None:
            return _put(client, model, _read(file), expect, reason, dry_run, as_json, supersede)
        current, generation = _current(client, model)
        document = routewords.changed(current, *words)
        _put(client, model, document, generation if expect is None else expect, reason, dry_run, as_json, supersede)


@app.command("edit")
def edit_route(
    model: Model,
    reason: Reason = "",
    actor: Actor = "",
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Change a model's route in your editor.

    It opens in $VISUAL or $EDITOR; what you save is put in force. Refused when somebody else changed it meanwhile.
    What was refused stays in a file, to be mended.
    """
    from gateway.config.files import read_mapping
    from gateway.errors import ConfigError, GatewayError

    with answered():
        client = Client(server, actor)
        current, generation = _current(client, model)
        with tempfile.NamedTemporaryFile(
            "w", prefix=f"route-{Path(model).name}-", suffix=".yaml", delete=False, encoding="utf-8"
        ) as file:
            file.write(
                f"# Route of {shown(model)}, generation {generation}. Its fields: {client.server}/v1/schema/route\n"
            )
            file.write(_yaml(current))
        path = Path(file.name)
        kept = f"your text is kept: mend it, and gateway route set {shlex.quote(model)} --file {path}"
        _edit(path)
        try:
            document = read_mapping(path)
            if document == current:
                path.unlink()
                print("nothing changed")
                return
            _put(client, model, document, generation, reason, False, as_json)
        except ConfigError as error:
            raise ConfigError(f"{error}\n{kept}") from None
        except GatewayError as error:
            raise Refused(f"{error}\n{kept}") from None
        path.unlink(missing_ok=True)


@app.command("diff")
def diff_routes(
    model: Model,
    from_: Annotated[
        int | None,
        typer.Argument(metavar="FROM", help="A generation. [default: the one before TO]", show_default=False),
    ] = None,
    to: Annotated[
        int | None, typer.Argument(metavar="TO", help="A generation. [default: the one in force]", show_default=False)
    ] = None,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """What differs between two generations."""
    with answered():
        answer = Client(server).get("v1", "routes", model, "diff", **{"from": from_, "to": to})
        if as_json:
            return show.print_json(answer)
        print(f"- {_heading(answer['before'])}\n+ {_heading(answer['after'])}")
        show.print_diff(answer["diff"])
        if not answer["diff"]:
            print("  no difference")


@app.command("history")
def history(
    model: Model,
    limit: Annotated[int, typer.Option(min=1, max=500, metavar="N", help="At most.")] = 20,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """All generations of a model's route."""
    with answered():
        answer = Client(server).get("v1", "routes", model, "history", limit=limit)
        if as_json:
            return show.print_json(answer)
        rows = [
            (each["generation"], show.when(each["at"]), each["actor"], show.summary(each["route"]), each["reason"])
            for each in answer["routes"]
        ]
        show.print_table(">generation", "since", "by", "route", "reason", rows=rows)


@app.command("undo")
def undo(
    model: Model,
    to: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Back to generation N. [default: the one before]", show_default=False),
    ] = None,
    expect: Expect = None,
    supersede: Supersede = False,
    reason: Reason = "",
    actor: Actor = "",
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Put an earlier generation in force again.

    It becomes a new one: nothing is lost from the history, and an undo can be undone.
    """
    with answered():
        body = {"to": to, "expected_generation": expect, "reason": reason, "supersede": supersede}
        try:
            answer = Client(server, actor).post("v1", "routes", model, "rollback", body=body)
        except ServerRefused as refusal:
            _explain(refusal)
            raise
        _applied(answer, as_json)


def _put(
    client: Client,
    model: str,
    document: dict[str, Any],
    expected: int | None,
    reason: str,
    is_dry: bool,
    as_json: bool,
    supersede: bool = False,
) -> None:
    body = {"route": document, "expected_generation": expected, "reason": reason, "supersede": supersede}
    try:
        answer = client.put("v1", "routes", model, body=body, dry_run="true" if is_dry else None)
    except ServerRefused as refusal:
        _explain(refusal)
        raise
    _applied(answer, as_json)


def _applied(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show.print_json(answer)
    elif show.print_applied(answer):
        return
    if answer["missing"]:
        raise typer.Exit(REFUSED)


def _explain(refusal: ServerRefused) -> None:
    """Somebody was quicker: what is in force, beside what was asked for."""
    if refusal.status == 409 and refusal.body.get("diff"):
        print(f"from generation {refusal.body.get('generation')} to what you asked for:")
        show.print_diff(refusal.body["diff"])
        sys.stdout.flush()


def _current(client: Client, model: str) -> tuple[dict[str, Any], int]:
    """Document and generation; nothing and 0 where there is none."""
    try:
        answer = client.get("v1", "routes", model)
    except ServerRefused as refusal:
        if refusal.status != 404:
            raise
        return {}, 0
    return answer["route"], answer["generation"]


def _read(file: str) -> dict[str, Any]:
    from gateway.config.files import read_mapping

    return read_mapping(Path("/dev/stdin" if file == "-" else file))


def _edit(path: Path) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        code = subprocess.run([*shlex.split(editor), str(path)], check=False).returncode
    except (OSError, ValueError) as error:
        path.unlink()
        text = getattr(error, "strerror", None) or str(error)
        raise Refused(f"editor {editor!r}: {text}; name another in $EDITOR") from None
    if code != 0:
        path.unlink()
        raise Refused(f"editor {editor!r} ended with {code}: nothing was changed")


def _heading(record: dict[str, Any]) -> str:
    by = "the gateway itself" if record["automatic"] else shown(record["actor"])
    reason = f": {shown(record['reason'])}" if record["reason"] else ""
    return f"{shown(record['model'])} generation {record['generation']}, {show.when(record['at'])} by {by}{reason}"


def _yaml(document: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(document, sort_keys=False, default_flow_style=False, allow_unicode=True)
