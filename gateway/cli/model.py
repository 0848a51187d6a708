"""`gateway model`: what there is, where it comes from, and what comes and goes."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gateway.cli import show
from gateway.cli.client import DEFAULT_SERVER, Actor, AsJson, Client, Reason, Server, answered, shown
from gateway.cli.failure import REFUSED
from gateway.cli.golden import golden

app = typer.Typer(
    name="model",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Models and their versions: list, show, add, retire, golden.",
)

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.", show_default=False)]
_COLUMNS = ("model", "version", "state", ">traffic", "owner", "digest", "registered", "")


@app.command("list")
def list_models(server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """All models and versions, their state and traffic."""
    with answered():
        answer = Client(server).get("v1", "models")
        if as_json:
            return show.print_json(answer)
        rows = [_row(model, version) for model in answer["models"] for version in model["versions"]]
        show.print_table(*_COLUMNS, rows=rows)


@app.command("show")
def show_model(
    model: Model,
    version: Annotated[
        str | None, typer.Argument(metavar="VERSION", help="All that is known of one.", show_default=False)
    ] = None,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """One model, or all that is known of one version.

    Of a version: digest, signature, lineage and card.
    """
    with answered():
        client = Client(server)
        if version is not None:
            answer = client.get("v1", "models", model, "versions", version)
            return show.print_json(answer) if as_json else _print_version(answer)
        answer = client.get("v1", "models", model)
        if as_json:
            return show.print_json(answer)
        show.print_table(*_COLUMNS[1:], rows=[_row(answer, each)[1:] for each in answer["versions"]])
        if answer["route"] is None:
            print("no route yet")
        else:
            print(f"route, generation {answer['generation']}: {shown(show.summary(answer['route']))}")


@app.command("add")
def add(
    model: Model,
    version: Annotated[
        str | None,
        typer.Argument(metavar="VERSION", help="[default: all that lie there and are new]", show_default=False),
    ] = None,
    reason: Reason = "",
    actor: Actor = "",
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Take in a version that lies in the repository.

    It is registered and loaded in every worker. It gets no traffic until it is routed: gateway route set MODEL ...
    Its files must not change from now on; changed ones under the same number are refused.
    """
    with answered():
        body = {"version": version, "reason": reason}
        answer = Client(server, actor).post("v1", "models", model, "versions", body=body)
        if as_json:
            return show.print_json(answer)
        for each in answer["versions"]:
            workers = ", ".join(map(shown, each["workers"])) or "no worker: none is alive"
            print(f"{shown(model)} version {shown(each['version'])} is loaded and warm in {workers}")
            print(f"  {shown(each['digest'])}")


@app.command("retire")
def retire(
    model: Model,
    version: Annotated[str, typer.Argument(metavar="VERSION", show_default=False)],
    reason: Reason = "",
    actor: Actor = "",
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Unload a version everywhere, for good.

    Refused while the model's route names it; `add` brings it back.
    """
    with answered():
        client = Client(server, actor)
        answer = client.post("v1", "models", model, "versions", version, "retire", body={"reason": reason})
        if as_json:
            show.print_json(answer)
        else:
            workers = ", ".join(map(shown, answer["unloaded"])) or "no worker"
            print(f"{shown(model)} version {shown(version)} is retired; unloaded in {workers}")
            for each in answer["missing"]:
                print(f"  NOT in {shown(each['worker'])}: {shown(each['reason'])}")
        if answer["missing"]:
            raise typer.Exit(REFUSED)


app.command("golden")(golden)


def _row(model: dict[str, Any], version: dict[str, Any]) -> tuple[str, ...]:
    route = model["route"] or {}
    share = show.shares(route.get("versions")).get(version["version"])
    traffic = show.percent(share) if share is not None else "rule" if version["is_routed"] else ""
    if any(each["version"] == version["version"] for each in route.get("shadows") or []):
        traffic = "shadow" if share is None else f"{traffic}, shadow"
    elif traffic == "rule" and (route.get("fallback") or {}).get("version") == version["version"]:
        traffic = "fallback"
    return (
        model["name"],
        version["version"],
        version["state"],
        traffic,
        str(version["card"].get("owner", "")),
        show.digest(version["digest"]),
        show.when(version["registered_at"]),
        version["fault"] or version["reason"],
    )


def _print_version(version: dict[str, Any]) -> None:
    states = ", ".join(f"{state} in {show.count(n, 'worker')}" for state, n in version["states"].items())
    lines: list[tuple[str, Any]] = [
        ("state", f"{version['state']}{f' ({states})' if states else ''}"),
        ("why", version["fault"] or version["reason"]),
        ("digest", version["digest"]),
        ("folder", version["path"]),
        ("registered", f"{show.when(version['registered_at'])} by {version['registered_by']}"),
    ]
    signature = version["signature"] or {}
    for side in ("inputs", "outputs"):
        for number, tensor in enumerate(signature.get(side) or []):
            shape = ", ".join(map(str, tensor.get("shape") or []))
            lines.append((side if not number else "", f"{tensor.get('name')}  {tensor.get('datatype')} [{shape}]"))
    for section in ("lineage", "card"):
        lines += [(f"{section}.{name}", show.value(value)) for name, value in version[section].items()]
    print(f"{shown(version['model'])} version {shown(version['version'])}")
    for name, value in lines:
        if value:
            print(f"  {shown(name):<22}{shown(str(value))}")
