"""`gateway rollout`: a new version in a model's place, by itself: promoted when it is shown good, else taken back."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli import show
from gateway.cli.client import DEFAULT_SERVER, Actor, AsJson, Client, Reason, Server, answered, shown
from gateway.cli.failure import REFUSED

app = typer.Typer(
    name="rollout",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""A new version in a model's place, unattended: promoted when it is shown good, taken back when it is not.

    \b
    gateway rollout plan fraud.yaml       what it would do, and how long that takes; nothing happens
    gateway rollout start fraud.yaml      go; or: gateway rollout start fraud 2
    gateway rollout watch fraud           look on
    gateway rollout explain fraud         why: each decision with its numbers
    gateway rollout abort fraud           take it back now

    A plan of three lines is a safe one:

    \b
    model: fraud
    candidate: 2
    strategy: canary          # or shadow, blue_green, [shadow, canary], [shadow, blue_green]

    ROLLOUT is an id such as fraud-3, or the model's name for its newest.
    """,
)

Which = Annotated[
    str, typer.Argument(metavar="ROLLOUT", help="Its id, or the model's name for its newest.", show_default=False)
]
Plan = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE | MODEL VERSION",
        help="The plan, YAML or JSON (- reads it from a pipe); or a model and its candidate, for a canary by defaults.",
        show_default=False,
    ),
]
ENDED = frozenset({"promoted", "rolled_back", "refused", "superseded", "needs_operator"})
"""Stages in which nobody need look on any more."""


@app.command("plan")
def plan(
    what: Plan,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Say what a plan will do, and about how long that takes at the traffic there is. Nothing happens.

    Durations are those of a candidate as good as stable. With --json: the plan with every default that is in force.
    """
    with answered():
        answer = Client(server).post("v1", "rollouts", body={"plan": _plan(what)}, dry_run="true")
        if as_json:
            return show.print_json(answer)
        print(_text(answer["description"]))


@app.command("start")
def start(
    what: Plan,
    observe: Annotated[
        bool, typer.Option("--observe", help="Decide and record, touch nothing: a dry run on live traffic.")
    ] = False,
    supersede: Annotated[
        bool, typer.Option("--supersede", help="Take the rollout of this model that is under way back first.")
    ] = False,
    override: Annotated[
        bool, typer.Option("--override", help="Try files that were taken back once. Needs --reason.")
    ] = False,
    watch_it: Annotated[bool, typer.Option("--watch", help="Look on until it is decided.")] = False,
    reason: Reason = "",
    actor: Actor = "",
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Start a rollout. It goes on by itself, whether anybody looks on or not.

    The candidate is loaded and tried (golden examples, NaN, latency, memory) before its first request. Then the plan's
    stages: each ends on evidence, never on time alone. Refused while another rollout of the model is under way.
    """
    with answered():
        if watch_it:
            _needs_terminal("rollout start --watch", as_json)  # before anything is started
        document = _plan(what)
        if observe:
            document["mode"] = "observe"
        client = Client(server, actor)
        body = {"plan": document, "reason": reason, "override": override, "supersede": supersede}
        answer = client.post("v1", "rollouts", body=body)
        if as_json:
            show.print_json(answer)
        else:
            print(f"rollout {shown(answer['id'])}: version {answer['candidate']} in place of {answer['stable']}")
            if answer["waits_for"]:
                print(f"  begins when {shown(answer['waits_for'])} is out of its way")
            if not watch_it:
                print(f"  gateway rollout watch {shown(answer['id'])}")
        if watch_it:
            _watch(client, answer["id"], 0.5, as_json)


@app.command("status")
def status(
    rollout: Which,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Where it stands, what it waits for, and what each guardrail says."""
    from gateway.cli import rolloutview

    with answered():
        answer = Client(server).get("v1", "rollouts", rollout)
        if as_json:
            return show.print_json(answer)
        out = show.console()
        out.print(rolloutview.picture(answer, width=out.width))


@app.command("watch")
def watch(
    rollout: Which,
    every: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Between two looks.")] = 0.5,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Look on until it is decided (or Ctrl-C, which does not stop the rollout).

    \b
    evidence    how strongly the requests speak against the candidate; at 1.0 of what is needed it is taken back
    shown       how strongly they show it good; at 1.0 of what is needed it may go on
    Exit code 1 when it was taken back, refused or needs an operator. With --json, a line for each change.
    """
    with answered():
        _needs_terminal("rollout watch", as_json)
        _watch(Client(server), rollout, every, as_json)


@app.command("list")
def list_rollouts(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Only of this model.", show_default=False)
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Only those that are not over.")] = False,
    blocked: Annotated[bool, typer.Option("--blocked", help="The files that were taken back, instead.")] = False,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """All rollouts, the newest first."""
    with answered():
        client = Client(server)
        if blocked:
            answer = client.get("v1", "blocked", model=model)
            if as_json:
                return show.print_json(answer)
            rows = [
                (
                    f"{b['model']}/{b['version']}",
                    show.digest(b["digest"]),
                    b["rollout"],
                    show.when(b["at"]),
                    b["reason"],
                )
                for b in answer["blocked"]
            ]
            if not rows:
                print("no files are blocked")
                return
            return show.print_table("version", "files", "rollout", "since", "why", rows=rows)
        answer = client.get("v1", "rollouts", model=model, live="true" if live else None)
        if as_json:
            return show.print_json(answer)
        if not answer["rollouts"]:
            which = f"no rollout of {shown(model)}" if model else "no rollout"
            print(which + (" is under way" if live else " yet: gateway rollout start --help"))
            return
        lines = [
            (
                each["id"],
                f"{each['stable']} -> {each['candidate']}",
                each["stage"] + (" (observes)" if each["mode"] == "observe" else ""),
                show.percent(each["weight_percent"]),
                ", ".join(each["holds"]),
                show.when(each["created_at"]),
                each["created_by"],
                each["reason"] or each["status"].get("headline", ""),
            )
            for each in answer["rollouts"]
        ]
        show.print_table("rollout", "versions", "stage", ">weight", "held by", "began", "by", "what", rows=lines)


@app.command("pause")
def pause(
    rollout: Which, reason: Reason = "", actor: Actor = "", server: Server = DEFAULT_SERVER, as_json: AsJson = False
) -> None:
    """Hold it where it is. It is judged all the while, and taken back if it turns out bad."""
    _order(Client(server, actor), rollout, "pause", {"reason": reason}, as_json, "is paused")


@app.command("resume")
def resume(
    rollout: Which, reason: Reason = "", actor: Actor = "", server: Server = DEFAULT_SERVER, as_json: AsJson = False
) -> None:
    """Let a paused one go on."""
    _order(Client(server, actor), rollout, "resume", {"reason": reason}, as_json, "goes on")


@app.command("promote")
def promote(
    rollout: Which,
    to_end: Annotated[
        bool, typer.Option("--to-end", help="Skip the steps that remain, to the bake; from there, to the promotion.")
    ] = False,
    reason: Reason = "",
    actor: Actor = "",
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """On to the next stage by your word: past a hold, a gate, or a guardrail that is still undecided.

    Past what is undecided it needs --reason, and says what is undecided. It is judged in the next stage as in any: your
    word does not keep a bad one.
    """
    _order(Client(server, actor), rollout, "promote", {"reason": reason, "to_end": to_end}, as_json, "is to go on")


@app.command("gate")
def gate(
    rollout: Which,
    name: Annotated[str, typer.Argument(metavar="GATE", help="traffic, bake, promote, or step-N.", show_default=False)],
    reason: Reason = "",
    actor: Actor = "",
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Open a gate of its plan; what else holds it goes on holding it."""
    _order(Client(server, actor), rollout, "gate", {"gate": name, "reason": reason}, as_json, f"may pass {name!r}")


@app.command("abort")
def abort(
    rollout: Which, reason: Reason = "", actor: Actor = "", server: Server = DEFAULT_SERVER, as_json: AsJson = False
) -> None:
    """Take it back: the candidate's weight to 0 in every worker, at once. After a promotion, while stable is kept."""
    _order(Client(server, actor), rollout, "abort", {"reason": reason}, as_json, "is taken back")


@app.command("retry")
def retry(
    rollout: Which, reason: Reason = "", actor: Actor = "", server: Server = DEFAULT_SERVER, as_json: AsJson = False
) -> None:
    """Try a rollback again that got stuck (needs_operator), when what was in its way is mended."""
    _order(Client(server, actor), rollout, "retry", {"reason": reason}, as_json, "is tried again")


@app.command("explain")
def explain(
    rollout: Which,
    seq: Annotated[
        int | None,
        typer.Argument(metavar="N", help="A decision's number. [default: all that moved it]", show_default=False),
    ] = None,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Why: each decision with what every guardrail said, and the numbers it was made of."""
    with answered():
        answer = Client(server).get("v1", "rollouts", rollout, "explain", seq=seq)
        if as_json:
            return show.print_json(answer)
        for each in answer["decisions"]:
            route = f", generation {each['generation']} of the route" if each["generation"] else ""
            print(f"{each['seq']:>4}  {show.when(each['at'])}{route}, evidence {show.digest(each['snapshot_digest'])}")
            print("\n".join(f"      {shown(line)}" for line in each["text"].splitlines()))
        if not answer["decisions"]:
            print("nothing is decided yet")


@app.command("replay")
def replay(
    rollout: Which,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Take its decisions again from the evidence that was stored with them: they must come out the same."""
    with answered():
        answer = Client(server).get("v1", "rollouts", rollout, "replay")
        if as_json:
            show.print_json(answer)
        else:
            number = show.count(answer["decisions"], "decision")
            verdict = "all the same" if answer["same"] else "NOT the same:"
            print(f"{shown(answer['rollout'])}: {number} taken again, {verdict}")
            for line in answer["differences"]:
                print(f"  {shown(line)}")
        if not answer["same"]:
            raise typer.Exit(REFUSED)


@app.command("plot")
def plot(
    rollout: Which,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write: .png or .svg.", show_default=False)],
    server: Server = DEFAULT_SERVER,
) -> None:
    """Draw it: weight, failures, evidence against and for the candidate, decisions."""
    with answered():
        from gateway.cli.rolloutplot import draw

        client = Client(server)
        now = client.get("v1", "rollouts", rollout)
        line = client.get("v1", "rollouts", rollout, "timeline")
        title = f"{now['model']} {now['stable']} → {now['candidate']}: {now['stage'].replace('_', ' ')}"
        points = [(point["at"], point) for point in line["points"]]
        draw(title, points, line["decisions"], path, now["id"], now["created_at"])
        print(f"wrote {path}")


def _order(client: Client, rollout: str, what: str, body: dict[str, Any], as_json: bool, done: str) -> None:
    with answered():
        answer = client.post("v1", "rollouts", rollout, what, body=body)
        if as_json:
            return show.print_json(answer)
        share = show.percent(answer["weight_percent"])
        print(f"rollout {shown(answer['id'])} {done}; it was {answer['stage']} at {share}")


def _plan(what: list[str]) -> dict[str, Any]:
    """Of a file, or of a model and a version."""
    from gateway.config.files import read_mapping
    from gateway.errors import ConfigError

    if len(what) == 1:
        return read_mapping(Path("/dev/stdin" if what[0] == "-" else what[0]))
    if len(what) == 2:
        return {"model": what[0], "candidate": what[1], "strategy": "canary"}
    raise ConfigError(f"got {len(what)} words, expected the plan's FILE, or MODEL VERSION")


def _needs_terminal(command: str, as_json: bool) -> None:
    from gateway.errors import ConfigError

    if not as_json and not sys.stdout.isatty():
        raise ConfigError(f"{command}: draws on a terminal, and this is none; take --json for lines")


def _text(text: str) -> str:
    return "\n".join(shown(line) for line in text.splitlines())


def _watch(client: Client, rollout: str, every_s: float, as_json: bool) -> None:
    try:
        answer = _lines(client, rollout, every_s) if as_json else _live(client, rollout, every_s)
    except KeyboardInterrupt:
        raise typer.Exit from None
    if answer["stage"] != "promoted":
        raise typer.Exit(REFUSED)


def _lines(client: Client, rollout: str, every_s: float) -> dict[str, Any]:
    last: tuple[Any, ...] = ()
    while True:
        answer: dict[str, Any] = client.get("v1", "rollouts", rollout)
        now = (answer["stage"], answer["epoch"], answer["holds"], answer["decisions"])
        if now != last:
            print(json.dumps(answer, ensure_ascii=False), flush=True)
            last = now
        if answer["stage"] in ENDED or not answer["is_live"]:
            return answer
        rollout = answer["id"]  # a model's name: its newest may be another one tomorrow
        time.sleep(every_s)


def _live(client: Client, rollout: str, every_s: float) -> dict[str, Any]:
    """A server that goes away is shown as that, and comes back by itself."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from gateway.cli import rolloutview
    from gateway.cli.failure import Refused

    last: Any = Text("")
    with Live(console=show.console(), screen=False, auto_refresh=False) as live:
        while True:
            try:
                answer: dict[str, Any] = client.get("v1", "rollouts", rollout)
                rollout = answer["id"]
                found = client.get("v1", "rollouts", rollout, "timeline")
                last = rolloutview.picture(answer, found, live.console.width)
                live.update(last, refresh=True)
                if answer["stage"] in ENDED or not answer["is_live"]:
                    return answer
            except Refused as error:
                live.update(Group(last, Text(f"{time.strftime('%H:%M:%S')} {error}", style="bold red")), refresh=True)
            time.sleep(every_s)
