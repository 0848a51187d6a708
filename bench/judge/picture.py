"""The picture: false rollbacks against the time to catch a bad candidate, each method named where it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Seen on white and on black alike: contrast about 4 : 1 with both, nothing filled behind.
INK, OURS, THEIRS = "#7a838f", "#14a05a", "#dd6b2d"
MINUTES = (1, 2, 3, 5, 10, 20, 30, 60, 120)


class Place(NamedTuple):
    """Where a method's name goes: beside a height of its line, some points away."""

    height: float  # in per cent
    dx: float
    dy: float
    align: str
    text: str


PLACES: Mapping[str, Place] = {
    "gateway_01": Place(0, 0, 17, "center", "this gateway"),
    "z_repeated": Place(63, 10, 0, "left", "z-test, looked at\nevery minute (p < 0.05)"),
    "z_once": Place(20, -10, 0, "right", "z-test, once,\nat the end (p < 0.05)"),
    "flagger_1": Place(100, 0, 12, "center", "Flagger, default"),
    "flagger_5": Place(100, 0, 12, "left", "Flagger, 5 failures"),
    "argo_0": Place(69, 10, 0, "left", "Argo Rollouts, default"),
    "argo_3": Place(13, 0, 11, "center", "Argo Rollouts,\nfailureLimit 3"),
    "kayenta": Place(1, 0, 12, "center", "Kayenta, judging\nevery 10 minutes"),
}


def draw(points: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Writes judge.svg and judge.png and returns their paths. `points`: `comparison.Point.as_dict` of each method."""
    matplotlib.rcParams.update({"svg.hashsalt": "judge", "font.size": 11, "font.family": "sans-serif"})
    figure = Figure(figsize=(10, 6.4))
    figure.patch.set_alpha(0.0)
    axes = figure.add_axes((0.085, 0.125, 0.895, 0.74))
    _dress(axes)
    by_method = {point["method"]: point for point in points}
    for method, place in PLACES.items():
        _mark(axes, by_method[method], place, is_ours=method == "gateway_01")
    _explain(axes, by_method)
    ours = by_method["gateway_01"]
    figure.text(0.012, 0.955, "Rolled back by mistake, or in time?", color=INK, fontsize=17, weight="bold")
    figure.text(
        0.012, 0.905,
        f"Two-hour rollouts to 5, 10, 25, 50 % of 50 requests/s, each simulated {ours['n']:,} times; "
        "stable fails in 0.5 % of its requests.",
        color=INK, fontsize=10.5,
    )  # fmt: skip
    paths = []
    folder.mkdir(parents=True, exist_ok=True)
    for kind, options in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 160})):
        path = folder / f"judge.{kind}"
        figure.savefig(path, transparent=True, **options)
        paths.append(path)
    return paths


def _dress(axes: Axes) -> None:
    axes.patch.set_alpha(0.0)
    axes.set_xscale("log")
    axes.set_xlim(0.72, 150)
    axes.set_ylim(-6, 110)
    axes.set_xticks(MINUTES, [str(m) for m in MINUTES])
    axes.minorticks_off()
    axes.set_yticks((0, 50, 100), ["none", "half", "all"])
    axes.tick_params(colors=INK, length=0, pad=6)
    for side in axes.spines.values():
        side.set_visible(False)
    for share in (0, 50, 100):
        axes.axhline(share, color=INK, alpha=0.8 if share == 0 else 0.22, linewidth=0.8, zorder=0)
    axes.set_xlabel("minutes until a bad candidate, with 4 times the errors, is rolled back (median)", color=INK)
    axes.set_ylabel("healthy candidates rolled back by mistake", color=INK)


def _mark(axes: Axes, point: Mapping[str, Any], place: Place, *, is_ours: bool) -> None:
    minutes = point["median_s"] / 60.0
    calm, incident = 100.0 * point["false_calm"], 100.0 * point["false_incident"]
    colour, size = (OURS, 13) if is_ours else (THEIRS, 9)
    if incident - calm > 3.0:
        axes.plot([minutes, minutes], [calm + 1.6, incident], color=colour, linewidth=2.2, alpha=0.75, zorder=2)
    axes.plot(minutes, incident, "o", color=colour, markersize=size, zorder=3)
    axes.plot(minutes, calm, "o", markerfacecolor="none", markeredgecolor=colour, markeredgewidth=2.0, markersize=size,
              zorder=3)  # fmt: skip
    axes.annotate(
        place.text, (minutes, place.height), (place.dx, place.dy), textcoords="offset points", ha=place.align,
        va="center" if place.dy == 0 else "bottom", color=colour, weight="bold", fontsize=15 if is_ours else 10.5,
        linespacing=1.15,
    )  # fmt: skip


def _explain(axes: Axes, points: Mapping[str, Mapping[str, Any]]) -> None:
    """What ring and dot mean, said once at a method where they lie far apart; and which corner is good."""
    z, ours = points["z_repeated"], points["gateway_01"]
    x = z["median_s"] / 60.0
    for height, text in (
        (100.0 * z["false_incident"], f"dot: {100 * z['false_incident']:.0f} %, with an\nincident in both versions"),
        (100.0 * z["false_calm"], f"ring: {100 * z['false_calm']:.0f} %, on a quiet day"),
    ):
        axes.annotate(text, (x, height), (14, 0), textcoords="offset points", va="center", color=INK, fontsize=10)
    wrong = max(ours["false_calm"], ours["false_incident"])
    axes.annotate(
        f"at most {100 * wrong:.1f} % by mistake, quiet or not;\n"
        f"the bad one is gone in {ours['median_s'] / 60:.0f} minutes",
        (ours["median_s"] / 60.0, 0), (0, 38), textcoords="offset points", ha="center", va="bottom", color=OURS,
        fontsize=10,
    )  # fmt: skip
    axes.annotate("the corner to be in", (0.75, 2), color=INK, fontsize=10, style="italic", va="bottom")
