"""What the operator's commands print: tables, differences, who acknowledged; or the server's answer as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gateway.cli.client import shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_STATES = {"READY": "green", "retired": "dim", "not loaded": "dim", "UNAVAILABLE": "red"}
_DIGEST_SHOWN = 12


def print_json(answer: Any) -> None:
    print(json.dumps(answer, indent=2, ensure_ascii=False), flush=True)


def console() -> Console:
    from rich.console import Console

    class _Console(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # whoever is `answered` takes it for no error; Rich would end with 1

    return _Console(width=None if sys.stdout.isatty() else 10_000, highlight=False)  # a pipe has no width to fold at


def table(*columns: str, rows: Iterable[Sequence[Any]]) -> Table:
    """Columns whose name starts with > are set to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(shown(str(cell)), style=_STATES.get(str(cell), "")) for cell in row))
    return made


def print_table(*columns: str, rows: Iterable[Sequence[Any]], title: str = "") -> None:
    if title:
        print(shown(title), flush=True)
    console().print(table(*columns, rows=rows))


def print_diff(diff: Sequence[Mapping[str, Any]]) -> None:
    """One line for each place: + added, - taken away, ~ changed."""
    from rich.text import Text

    out = console()
    for change in diff:
        before, after = change["before"], change["after"]
        path = shown(str(change["path"])) or "route"
        if before is None:
            out.print(Text(f"  + {path}: {value(after)}", style="green"))
        elif after is None:
            out.print(Text(f"  - {path}: {value(before)}", style="red"))
        else:
            out.print(Text(f"  ~ {path}: {value(before)} -> {value(after)}", style="yellow"))


def print_applied(answer: Mapping[str, Any]) -> bool:
    """A change of a route as it was answered. Whether every live worker has it."""
    model, generation = answer["model"], answer["generation"]
    if answer.get("is_dry_run"):
        print(f"{shown(model)}: this would be generation {generation}; nothing was changed")
    else:
        print(f"{shown(model)}: generation {generation} is in force")
    if answer["diff"]:
        print_diff(answer["diff"])
    else:
        print("  no difference to the one before")
    if answer.get("loads"):
        verb = "would be" if answer.get("is_dry_run") else "were"
        print(f"  {verb} loaded first: version {', '.join(map(shown, answer['loads']))}")
    if answer.get("is_dry_run"):
        return True
    return print_acknowledged(answer)


def print_acknowledged(answer: Mapping[str, Any]) -> bool:
    """Who has a generation in force, and who has not and why."""
    done, missing = answer["acknowledged"], answer["missing"]
    if done:
        seconds = answer.get("live_after_s")
        after = f" after {seconds:.3f} s" if seconds is not None else ""
        print(f"  live in {count(len(done), 'worker')}{after}: {', '.join(map(shown, done))}")
    for each in missing:
        print(f"  NOT live in {shown(each['worker'])}: {shown(each['reason'])}")
    if not done and not missing:
        print("  no worker is alive; the next one to start takes it")
    return not missing


def summary(route: Mapping[str, Any]) -> str:
    """A route on one line."""
    parts = [split(route.get("versions"))]
    rules = route.get("rules") or []
    if rules:
        parts.append(count(len(rules), "rule"))
    parts += [f"shadow {each['version']} ({percent(each.get('percent', 100))})" for each in route.get("shadows") or []]
    if sticky := route.get("sticky"):
        parts.append(
            "sticky by " + " ".join(f"{kind} {sticky[kind]}" for kind in ("header", "parameter") if kind in sticky)
        )
    if fallback := route.get("fallback"):
        parts.append(f"fallback {fallback['version']}")
    return ", ".join(parts)


def split(versions: Any) -> str:
    return ", ".join(f"{version}: {percent(weight)}" for version, weight in shares(versions).items()) or "no split"


def shares(versions: Any) -> dict[str, float]:
    """Of a split, in the short form or the long one: percent by version."""
    if isinstance(versions, Mapping):
        return dict(versions)
    found: dict[str, float] = {}
    for share in versions or []:
        found[share["version"]] = found.get(share["version"], 0) + share["weight"]
    return found


def percent(number: float) -> str:
    return f"{number:g} %"


def value(anything: Any) -> str:
    return shown(anything) if isinstance(anything, str) else json.dumps(anything, ensure_ascii=False)


def when(at: float | None) -> str:
    """Local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if at else ""


def digest(text: str | None) -> str:
    """Enough of it to compare by eye."""
    method, _, digits = (text or "").rpartition(":")
    return f"{method}:{digits[:_DIGEST_SHOWN]}" if method else digits[:_DIGEST_SHOWN]


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
