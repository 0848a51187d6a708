"""The live view: a panel for each release, and every decision as a line above them, with the time it was taken at.

Where nobody looks (a pipe, a log) the lines alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from demo.rollouts.follow import Followed
from gateway.rollout import explain

BAR, SMALL = 30, 8
QUIET_S = 10.0
_BADGES = {
    "promoted": ("PROMOTED", "bold black on green"),
    "rolling_back": ("TAKING BACK", "bold white on red"),
    "rolled_back": ("TAKEN BACK", "bold white on red"),
    "refused": ("REFUSED", "bold white on red"),
    "needs_operator": ("NEEDS YOU", "bold black on yellow"),
}
_STAGES = {"loading": "is being loaded", "warming": "is tried before traffic", "baking": "nearly everything, then done"}
_EVENTS = {
    "promote": "bold green",
    "roll_back": "bold red",
    "drained": "red",
    "refuse": "bold red",
    "give_up": "bold yellow",
}


class Screen:
    def __init__(self, console: Console, followed: list[Followed]) -> None:
        self._console, self._followed = console, followed
        self._began_s = time.monotonic()
        self._told_s = self._began_s
        self._live: Live | None = None

    @contextmanager
    def open(self) -> Iterator[Screen]:
        self._began_s = time.monotonic()
        if not self._console.is_terminal:
            yield self
            return
        with Live(self._view(), console=self._console, refresh_per_second=4, transient=True) as self._live:
            yield self
        self._live = None

    def decided(self, followed: Followed, decision: dict[str, Any]) -> None:
        """One line; those that moved nothing are for the audit log."""
        if decision["event"]:
            text = Text(f"{self._clock()}  ", style="dim")
            text.append(f"{followed.model.name:<10} ", style="bold")
            said = str(decision["headline"])
            said = said.partition(":")[0] if decision["event"] == "drained" else said  # its reason was said before
            text.append(said, style=_EVENTS.get(decision["event"], ""))
            self._console.print(text, soft_wrap=False)

    def update(self) -> None:
        if self._live:
            self._live.update(self._view())
        elif time.monotonic() - self._told_s >= QUIET_S:
            self._told_s = time.monotonic()
            for each in self._followed:
                if not each.is_over:
                    self._console.print(f"{self._clock()}  {each.model.name:<10} {self._line(each).plain}")

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self._began_s)
        return f"{seconds // 60}:{seconds % 60:02}"

    def _view(self) -> RenderableType:
        n = sum(each.stream.n for each in self._followed)
        head = Text(f" {self._clock()}", style="bold")
        head.append(f"   {n:,} requests so far, of real rows   nobody decides here but the gateway", style="dim")
        return Group(head, *(self._panel(each) for each in self._followed))

    def _panel(self, each: Followed) -> Panel:
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(width=12, style="dim")
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        table.add_row("release", Text(f"{each.model.candidate.summary}; stable: {each.model.stable.summary}"))
        table.add_row("traffic", self._traffic(each))
        table.add_row("worse?", self._evidence(each, "log_e", "log_threshold", "red"))
        table.add_row("good enough?", self._evidence(each, "promote_log_e", "promote_log_threshold", "green"))
        table.add_row("now", self._line(each))
        name, style = _BADGES.get(each.stage, ("ON TRIAL", "bold black on cyan"))
        title = Text(f" {each.model.name} ", style="bold")
        title.append(f"{each.model.about} ", style="dim")
        title.append(f" {name} ", style=style)
        border = {"promoted": "green", "rolled_back": "red", "rolling_back": "red", "refused": "red"}
        return Panel(
            table, title=title, title_align="left", border_style=border.get(each.stage, "cyan"), padding=(0, 1)
        )

    def _traffic(self, each: Followed) -> Text:
        stable, release = each.counted("answered")
        failed_stable, failed_release = each.counted("failed")
        text = _bar(each.weight / 100.0, BAR, "cyan" if not each.is_over else "green")
        text.append(f" {each.weight:g} %", style="bold")
        text.append("   failed: ", style="dim")
        text.append(f"release {failed_release:,} of {release:,}", style="bold red" if failed_release else "")
        text.append(f", stable {failed_stable:,} of {stable:,}", style="dim")
        return text

    def _evidence(self, each: Followed, got: str, needed: str, style: str) -> Text:
        text = Text()
        ended = each.ended if each.is_over else None
        for row in each.status.get("guardrails") or (explain.rows(ended["decision"]) if ended else ()):
            if not row.get("n") or row.get(got) is None or not row.get(needed):
                continue
            share = float(row[got]) / float(row[needed])
            text.append(f"{row['name']} ", style=f"bold {style}" if share >= 1.0 else "dim")
            text.append_text(_bar(share, SMALL, style))
            text.append("   ")
        return text if text.plain else Text("no requests yet", style="dim")

    def _line(self, each: Followed) -> Text:
        status = each.status
        said = str(status.get("headline") or "") or _STAGES.get(each.stage, each.stage)
        if each.is_over and each.ended:
            said = str(each.ended["headline"])
        return Text(
            said, style=_EVENTS.get({"promoted": "promote", "rolled_back": "roll_back"}.get(each.stage, ""), "")
        )


def _bar(share: float, width: int, style: str) -> Text:
    """To an eighth of a cell."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    whole, rest = divmod(eighths, 8)
    text = Text("█" * whole + (" ▏▎▍▌▋▊▉"[rest] if rest else ""), style=style)
    text.append("·" * (width - whole - bool(rest)), style="dim")
    return text
