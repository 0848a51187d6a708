"""A rollout as it is drawn on a terminal: where it stands, its guardrails, what was decided last."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway.cli import show
from gateway.cli.client import shown

if TYPE_CHECKING:
    from rich.console import RenderableType

MAX_DECISIONS = 8
BAR = 30
TREND_CELLS = 24
WIDE = 150
"""Columns of a terminal on which what a guardrail says fits beside its numbers; else it stands below."""
_STAGES = {
    "promoted": "bold green",
    "rolled_back": "bold red",
    "refused": "bold red",
    "rolling_back": "bold red",
    "needs_operator": "bold white on red",
    "superseded": "yellow",
}
_HEALTH = {"ok": "green", "suspect": "yellow", "bad_soft": "bold red", "bad_hard": "bold red"}
_OUTCOMES = {"ok": "green", "worse": "bold red", "fault": "red", "undecided": "yellow"}


def picture(
    found: Mapping[str, Any], timeline: Mapping[str, Any] | None = None, width: int | None = None
) -> RenderableType:
    """`width` of the terminal; None: as wide as it comes."""
    from rich.console import Group

    parts: list[RenderableType] = [*_head(found)]
    if rows := found["status"].get("guardrails"):
        is_wide = width is None or width >= WIDE
        parts.append(_guardrails(rows, timeline, is_wide))
        if not is_wide:
            parts += _sentences(rows)
    parts += [*_counts(found)]
    if timeline and timeline["decisions"]:
        parts.append(_decisions(timeline["decisions"]))
    return Group(*parts)


def _head(found: Mapping[str, Any]) -> list[RenderableType]:
    from rich.text import Text

    status = found["status"]
    head = Text(f"{shown(found['id'])}: {shown(found['model'])} {found['stable']} -> {found['candidate']}  ")
    stage = found["stage"]
    step = f" {found['step']} of {found['n_steps']}" if stage == "step" else ""
    head.append(stage.replace("_", " ") + step, style=_STAGES.get(stage, "bold cyan"))
    if (health := status.get("health")) and health != "unknown":
        head.append("  the candidate looks ")
        head.append(health.replace("_", " "), style=_HEALTH.get(health, "dim"))
    if found["mode"] == "observe":
        head.append("  observes only, touches nothing", style="dim")
    filled = round(found["weight_percent"] / 100 * BAR)
    bar = Text("  stable ")
    bar.append("█" * (BAR - filled), style="blue")
    bar.append("█" * filled, style=_STAGES.get(stage, "cyan").split()[-1])
    bar.append(f" candidate {show.percent(found['weight_percent'])}")
    if found["shadow_percent"]:
        bar.append(f", copies of {show.percent(found['shadow_percent'])}")
    parts: list[RenderableType] = [head, bar]
    if found["waits_for"]:
        parts.append(Text(f"  begins when {shown(found['waits_for'])} is out of its way", style="yellow"))
    if status.get("headline"):
        parts.append(Text(f"  {shown(status['headline'])}"))
    parts += [Text(f"    {shown(reason)}", style="dim") for reason in status.get("reasons", ())[1:6]]
    return parts


def _sentences(rows: list[Mapping[str, Any]]) -> list[RenderableType]:
    from rich.text import Text

    return [Text(f"  {shown(row['name'])}: {shown(row['sentence'])}", style="dim") for row in rows if row["sentence"]]


def _guardrails(
    rows: list[Mapping[str, Any]], timeline: Mapping[str, Any] | None, with_sentences: bool
) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    headings = ("guardrail", "if worse", "", ">evidence", "", ">shown", ">requests")
    for name in (*headings, "what") if with_sentences else headings:
        made.add_column(name.lstrip(">"), justify="right" if name.startswith(">") else "left", overflow="fold")
    for row in rows:
        worse = _share(row["log_e"], row["log_threshold"])
        good = _share(row["promote_log_e"], row["promote_log_threshold"]) if row["required"] else None
        made.add_row(
            Text(shown(row["name"])),
            Text(row["action"], style="dim"),
            Text(row["outcome"], style=_OUTCOMES.get(row["outcome"], "dim")),
            Text("" if worse is None else f"{max(worse, 0.0):.2f}", style="bold red" if worse and worse >= 1 else ""),
            Text(_trend(row["name"], timeline), style="red"),
            Text("" if good is None else f"{max(good, 0.0):.2f}", style="green" if good and good >= 1 else ""),
            f"{row['n']:,}",
            *([Text(shown(row["sentence"]))] if with_sentences else []),
        )
    return made


def _counts(found: Mapping[str, Any]) -> list[RenderableType]:
    from rich.text import Text

    status = found["status"]
    if not status.get("answered"):
        return []
    answered, failed, broken = status["answered"], status["failed"], status["broken"]
    texts = [
        f"{arm} answered {answered[arm]:,}, failed {failed[arm]:,}, broken {broken[arm]:,}"
        for arm in ("stable", "candidate")
    ]
    age = status.get("evidence_age_s")
    seen = "no evidence yet" if age is None else f"evidence {age:.1f} s old"
    parts: list[RenderableType] = [
        Text(f"  {'; '.join(texts)}; harmed by it {found['harmed_requests']:,}; {seen}", style="dim")
    ]
    lowered = [each for each in status.get("workers", ()) if each["lowered"]]
    parts += [Text(f"  worker {each['incarnation'][:8]}: {shown(each['lowered'])}", style="red") for each in lowered]
    return parts


def _decisions(decisions: list[Mapping[str, Any]]) -> RenderableType:
    from rich.text import Text

    text = Text()
    for each in decisions[-MAX_DECISIONS:]:
        clock = time.strftime("%H:%M:%S", time.localtime(each["at"]))
        text.append(f"  {clock} {each['seq']:>3} ", style="dim")
        text.append(f"{shown(each['headline'])[:200]}\n", style="" if each["event"] else "dim")
    return text


def _share(log_e: Any, log_threshold: Any) -> float | None:
    """Of the evidence that is needed, in the logarithm."""
    if log_e is None or log_threshold is None:
        return None
    got, needed = float(log_e), float(log_threshold)
    if math.isinf(got):
        return math.copysign(9.99, got)
    return min(got / needed, 9.99) if needed > 0 else None


def _trend(name: str, timeline: Mapping[str, Any] | None) -> str:
    from gateway.monitoring.drawing import sparkline

    if not timeline:
        return ""
    shares = []
    for point in timeline["points"][-TREND_CELLS:]:
        known = point["guardrails"].get(name)
        share = _share(known["log_e"], known["log_threshold"]) if known else None
        shares.append(max(share or 0.0, 0.0))
    return sparkline(shares, 1.0) if shares else ""
