"""A rollout as a picture: weight, failures, evidence against and for the candidate, and what was decided when.

Evidence is drawn as a share of what it needs, each guardrail by its own: at 100 % it speaks. Read on white and on black
alike.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from gateway.errors import ConfigError
from gateway.routing.route import SHARE_UNIT

SUFFIXES = (".png", ".svg")
WINDOW_S = 3.0
"""Over which a share of failures is taken."""
LOWEST, HIGHEST = -0.25, 1.6
"""Of the evidence's share: far below nothing is told any more, and above it has been said."""
_INK, _STABLE, _CANDIDATE, _BAD, _GOOD = "#7a838f", "#8b949e", "#2f81f7", "#e5534b", "#3fa45b"
_LINES = ("#2f81f7", "#d29922", "#a371f7", "#db61a2", "#39a0a8", "#8b949e", "#bc8c5f")
_ENDS = {"promoted": _GOOD, "rolled_back": _BAD, "refused": _BAD, "needs_operator": _BAD}

_SIDES = ((0, "stable", _STABLE), (1, "candidate", _CANDIDATE))

Sample = tuple[float, Mapping[str, Any]]
"""Wall time and gateway.control.rolloutstep's point of a timeline."""


def draw(
    title: str,
    samples: Sequence[Sample],
    decisions: Sequence[Mapping[str, Any]],
    path: Path,
    subtitle: str = "",
    began_s: float | None = None,
) -> None:
    """Write `path`. `decisions` have at, event, headline. ConfigError: another suffix, no matplotlib, no points."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path}: got {path.suffix or 'no suffix'}, expected {' or '.join(SUFFIXES)}")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError(f"{path}: a picture needs matplotlib: pip install 'gateway[plot]'") from None
    if not samples:
        raise ConfigError(f"{path}: the rollout has no points yet, or they are no longer kept")
    zero = samples[0][0] if began_s is None else began_s
    marks = [(each["at"] - zero, each["event"], each["headline"]) for each in decisions if each["event"]]
    times = [at - zero for at, _ in samples]
    points = [point for _, point in samples]
    end = max([*times, *(at for at, _, _ in marks)], default=1.0) or 1.0
    figure = Figure(figsize=(9.2, 7.4), layout="constrained")
    figure.patch.set_alpha(0.0)
    figure.suptitle(_plain(title), fontsize=13, color=_INK, weight="bold", x=0.02, ha="left")
    panels = figure.subplots(4, 1, sharex=True, height_ratios=(1.3, 0.8, 1.5, 1.1))
    _weight(panels[0], times, points, marks, end, subtitle)
    _failures(panels[1], times, points, end)
    _evidence(panels[2], times, points, ("log_e", "log_threshold"), "evidence that it is worse", _BAD, end)
    _evidence(
        panels[3], times, points, ("promote_log_e", "promote_log_threshold"), "that it is good enough", _GOOD, end
    )
    for axes in panels:
        _plainly(axes)
        for at, event, _ in marks:
            axes.axvline(at, color=_colour(event), linewidth=0.9, alpha=0.55, zorder=0)
    panels[3].set_xlabel("seconds since it began", fontsize=8.5, color=_INK)
    panels[3].set_xlim(0.0, end * 1.14)
    figure.supxlabel(_plain(_story(marks)), fontsize=8, color=_INK, x=0.02, ha="left", linespacing=1.5)
    try:
        figure.savefig(path, dpi=130, transparent=True)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None


def _weight(
    axes: Any,
    times: list[float],
    points: list[Mapping[str, Any]],
    marks: list[tuple[float, str, str]],
    end: float,
    subtitle: str,
) -> None:
    """Weights change at decisions, not at points in between."""
    share = [point["units"] * 100.0 / SHARE_UNIT for point in points]
    shadow = [point["shadow_units"] * 100.0 / SHARE_UNIT for point in points]
    last = marks[-1][1] if marks else ""
    colour = _BAD if last in ("roll_back", "drained", "refuse", "give_up") else _CANDIDATE
    axes.fill_between(times, share, step="post", color=colour, alpha=0.25, linewidth=0)
    axes.step(times, share, where="post", color=colour, linewidth=2.0)
    if any(shadow):
        axes.step(times, shadow, where="post", color=_STABLE, linewidth=1.2, linestyle=":")
    axes.set_ylim(0.0, 109.0)
    axes.set_yticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100 %"])
    axes.set_title(_plain("traffic to the candidate"), fontsize=9, color=_INK, loc="left")
    if subtitle:
        axes.set_title(_plain(subtitle), fontsize=8.5, color=_INK, loc="right", style="italic")
    places = _apart([at for at, _, _ in marks], end * 0.025, end * 1.1)
    for number, (place, (_, event, _)) in enumerate(zip(places, marks, strict=True), 1):
        axes.annotate(
            str(number), (place, 104.0), fontsize=7.5, color="white", ha="center", va="center", weight="bold",
            bbox={"boxstyle": "circle,pad=0.22", "facecolor": _colour(event), "edgecolor": "none"},
            annotation_clip=False,
        )  # fmt: skip


def _failures(axes: Any, times: list[float], points: list[Mapping[str, Any]], end: float) -> None:
    sides = [(name, ink, _shares(times, points, at)) for at, name, ink in _SIDES]
    top = max(1.0, *(y for _, _, line in sides for _, y in line), 0.0) * 1.25
    for _, ink, line in sides:
        if line:
            axes.plot(*zip(*line, strict=True), color=ink, linewidth=1.6)
    ends = [line[-1][1] if line else 0.0 for _, _, line in sides]
    for place, (name, ink, line) in zip(_apart(ends, 0.3 * top, top), sides, strict=True):
        if line:
            axes.annotate(name, (end * 1.015, place), fontsize=7.5, color=ink, va="center", annotation_clip=False)
    axes.set_ylim(-0.05 * top, top)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
    axes.yaxis.get_major_locator().set_params(nbins=4)
    axes.set_title("requests that failed", fontsize=9, color=_INK, loc="left")


def _shares(times: list[float], points: list[Mapping[str, Any]], side: int) -> list[tuple[float, float]]:
    """Percent failed of those settled in the last seconds; gaps where nobody asked."""
    found, first = [], 0
    for at in range(1, len(points)):
        while times[at] - times[first] > WINDOW_S and first < at - 1:
            first += 1
        n = points[at]["answered"][side] - points[first]["answered"][side]
        if n > 0:
            failed = points[at]["failed"][side] - points[first]["failed"][side]
            found.append((times[at], 100.0 * failed / n))
    return found


def _evidence(
    axes: Any,
    times: list[float],
    points: list[Mapping[str, Any]],
    fields: tuple[str, str],
    title: str,
    colour: str,
    end: float,
) -> None:
    names = list(dict.fromkeys(name for point in points for name in point["guardrails"]))
    lines = []
    for number, name in enumerate(names):
        line = [
            (at, min(max(float(got) / float(needed), LOWEST), HIGHEST))
            for at, point in zip(times, points, strict=True)
            if (rail := point["guardrails"].get(name)) and (got := rail[fields[0]]) is not None
            and (needed := rail[fields[1]]) and math.isfinite(float(needed))
        ]  # fmt: skip
        if any(y for _, y in line):  # else nothing was there to judge
            lines.append((name, _LINES[number % len(_LINES)], line))
    for _, ink, line in lines:
        axes.plot(*zip(*line, strict=True), color=ink, linewidth=1.6)
    for place, (name, ink, _) in zip(_apart([line[-1][1] for _, _, line in lines]), lines, strict=True):
        axes.annotate(name, (end * 1.015, place), fontsize=7.5, color=ink, va="center", annotation_clip=False)
    axes.axhline(1.0, color=colour, linewidth=1.3, linestyle="--")
    axes.set_ylim(LOWEST - 0.08, HIGHEST + 0.05)
    axes.set_yticks([0.0, 0.5, 1.0], ["0", "50", "100 %"])
    axes.set_title(_plain(f"{title}, of what each guardrail needs to say so"), fontsize=9, color=_INK, loc="left")


def _apart(places: list[float], least: float = 0.17, most: float = HIGHEST) -> list[float]:
    """Where names stand that must not lie on one another, in the order given."""
    order = sorted(range(len(places)), key=lambda at: places[at])
    put = {at: places[at] for at in order}
    for below, above in pairwise(order):
        put[above] = max(put[above], put[below] + least)
    over = max([put[at] for at in order], default=0.0) - most
    return [put[at] - max(over, 0.0) for at in range(len(places))]


def _story(marks: list[tuple[float, str, str]]) -> str:
    lines = []
    for number, (at, event, headline) in enumerate(marks, 1):
        text = headline.partition(":")[0] if event in ("drained", "cleared") else headline  # the reason was said before
        text = text if len(text) <= 300 else f"{text[:299]}…"
        lines += textwrap.wrap(f"{number}  {at:.1f} s  {text}", 140, subsequent_indent="     ")
    return "\n".join(lines)


def _plainly(axes: Any) -> None:
    axes.patch.set_alpha(0.0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.spines["bottom"].set_visible(True)
    axes.spines["bottom"].set_color(_INK)
    axes.tick_params(colors=_INK, labelsize=7.5, length=0)
    axes.grid(axis="y", color=_INK, alpha=0.18, linewidth=0.6)


def _colour(event: str) -> str:
    if event in ("roll_back", "drained", "refuse", "give_up", "supersede", "cleared"):
        return _BAD
    return _GOOD if event == "promote" else _CANDIDATE


def _plain(text: str) -> str:
    """Dollar signs would start mathematics, control characters a mess."""
    return "".join(each if each.isprintable() or each == "\n" else "?" for each in text).replace("$", r"\$")
