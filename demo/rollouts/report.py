"""What happened, what it cost the callers, and why, word for word out of the audit log."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from demo.rollouts.follow import Followed
from demo.rollouts.host import Host
from gateway.errors import GatewayError

WIDE = 100
_ENDED = {"promoted": ("PROMOTED", "bold green"), "rolled_back": ("TAKEN BACK", "bold red")}


def outcome(console: Console, each: Followed) -> None:
    """One release: how it ended, why, and what callers met."""
    word, style = _ENDED.get(each.stage, (each.stage.upper().replace("_", " "), "bold yellow"))
    line = Text(f"{each.model.name:<10} ", style="bold")
    line.append(word, style=style)
    line.append(f" after {_seconds(each):.0f} s", style="dim")
    console.print(line)
    for text in _facts(each):
        console.print(textwrap.indent(textwrap.fill(text, WIDE), "           "), highlight=False)


def _seconds(each: Followed) -> float:
    return float(each.ended["at"]) - each.began_s if each.ended else 0.0


def _facts(each: Followed) -> Iterable[str]:
    stable, release = each.counted("answered")
    _, failed = each.counted("failed")
    stream = each.stream
    if each.ended:
        yield f"why: {each.ended['headline']}"
    if each.stage == "promoted":
        yield f"callers harmed: {failed:,}. It answered {release:,} requests before it was given all of them."
    elif each.is_over:
        whole = stable + release
        yield f"callers harmed: {failed:,} of {whole:,} met a failure; it answered {release:,} before it was gone."
    if each.model.watched:
        label, word = each.model.watched
        was, is_ = stream.share_said("1", label), stream.share_said("2", label)
        yield f"it called {is_:.0%} {word}; stable calls {was:.0%} of them so."
    was, is_ = stream.share_wrong("1"), stream.share_wrong("2")
    yield f"the truth, which the gateway never saw: stable is wrong in {was:.1%} of its answers, this one in {is_:.1%}."


def audit(console: Console, host: Host, followed: list[Followed]) -> None:
    """What moved each release, oldest first."""
    for each in followed:
        answer = host.ask("GET", "v1", "audit", query={"model": each.model.name, "limit": 200})
        entries = [one for one in reversed(answer["entries"]) if str(one["action"]).startswith("rollout.")]
        held = sum(one["action"] == "rollout.hold" for one in entries)
        console.print(Text.assemble((each.model.name, "bold"), (f"   and {held} times it was told to wait", "dim")))
        for one in entries:
            if one["action"] == "rollout.hold":
                continue
            at = f"{one['at'] - each.began_s:6.1f} s"
            head = Text(f"  {at}  ", style="dim")
            head.append(f"{one['action'].removeprefix('rollout.'):<13}")
            head.append(f" {one['actor']}: ", style="dim")
            reason = str(one["reason"])
            if one["action"] == "rollout.drained":  # why was said before
                reason = reason.partition(":")[0]
            head.append(textwrap.shorten(reason, max(console.width, WIDE) - 40, placeholder="…"))
            console.print(head)
    verdict = host.ask("GET", "v1", "audit", "verify")
    said = "unbroken" if verdict["ok"] else f"BROKEN: {verdict['fault']}"
    console.print(
        Text(f"  the log is a chain of {verdict['n']} entries, {said}; head {verdict['head'][:24]}…", style="dim")
    )


def replays(host: Host, followed: list[Followed]) -> str:
    """Every decision taken again, from what was stored with it."""
    found = [host.ask("GET", "v1", "rollouts", each.id, "replay") for each in followed]
    n = sum(one["decisions"] for one in found)
    if all(one["same"] for one in found):
        return f"{n} decisions taken again from the numbers that were stored with them: every one came out the same"
    first = next(one["differences"][0] for one in found if not one["same"])
    return f"{n} decisions taken again, and they differ: {first}"


def explained(console: Console, host: Host, each: Followed) -> None:
    """The decision that ended it, with all its numbers."""
    answer = host.ask("GET", "v1", "rollouts", each.id, "explain")
    for one in answer["decisions"]:
        if each.ended and one["seq"] == each.ended["seq"]:
            for line in str(one["text"]).splitlines():
                console.print(Text(f"  {line}"))


def pictures(host: Host, followed: list[Followed], folder: Path) -> list[Path]:
    """A PNG and an SVG each; none without matplotlib."""
    from gateway.cli.rolloutplot import draw

    written: list[Path] = []
    for each in followed:
        line: dict[str, Any] = host.ask("GET", "v1", "rollouts", each.id, "timeline")
        points = [(one["at"], one) for one in line["points"]]
        word = _ENDED.get(each.stage, (each.stage,))[0].lower().replace("_", " ")
        title = f"{each.model.name} {each.now['stable']} → {each.now['candidate']}: {word}"
        for suffix in (".png", ".svg"):
            path = folder / f"{each.model.name}{suffix}"
            try:
                draw(title, points, line["decisions"], path, each.model.candidate.summary, each.began_s)
            except GatewayError:
                return written
            written.append(path)
    return written
