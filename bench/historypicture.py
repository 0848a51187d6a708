"""The picture of `python -m bench --history`: one line for each load, one place for each kept run.

Drawn in colours that are seen on white and on black alike, with nothing filled behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.history import BESIDE, Run, all_series, is_of_limit, stretches

INK = "#7a838f"
COLOURS = ("#14a05a", "#3b8fd4", "#dd6b2d", "#b05cc6", "#a8861a", "#d4477a", "#6f7fe0", "#1f9a9a", "#9a7b4f")
MOST_NAMES = 12  # under the axis


def draw(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Writes history.svg and history.png and returns their paths."""
    matplotlib.rcParams.update({"svg.hashsalt": "history", "font.size": 11, "font.family": "sans-serif"})
    folder.mkdir(parents=True, exist_ok=True)
    names = all_series(runs)
    panels = [
        ([name for name in names if is_of_limit(name)], "of the limit of HTTP/2"),
        ([name for name in names if BESIDE in name], "of the same without it"),
    ]
    panels = [panel for panel in panels if panel[0]]
    figure = Figure(figsize=(10, 2.2 + 3.1 * len(panels)))
    figure.patch.set_alpha(0.0)
    bottom, top = 0.9 / figure.get_figheight(), 1.0 / figure.get_figheight()
    height = (1 - bottom - top) / max(1, len(panels))
    for place, (chosen, words) in enumerate(panels):
        low = 1 - top - (place + 1) * height
        axes = figure.add_axes((0.085, low + 0.035, 0.62, height - 0.07))
        _lines(axes, runs, chosen)
        _dress(axes, runs, words, has_names=place == len(panels) - 1)
    up = 1 / figure.get_figheight()
    figure.text(0.012, 1 - 0.35 * up, "How fast, over our own versions?", color=INK, fontsize=17, weight="bold")
    figure.text(
        0.012, 1 - 0.68 * up,
        "Each kept run of make bench. Dot: median share of its rounds; bar: lowest and highest. "
        "Connections x streams.",
        color=INK, fontsize=10.5,
    )  # fmt: skip
    paths = []
    for kind, options in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 160})):
        path = folder / f"history.{kind}"
        figure.savefig(path, transparent=True, **options)
        paths.append(path)
    return paths


def _lines(axes: Axes, runs: Sequence[Run], names: Sequence[str]) -> None:
    for at, name in enumerate(names):
        colour = COLOURS[at % len(COLOURS)]
        lift = 0.05 * (at - (len(names) - 1) / 2)  # bars beside each other, not on each other
        latest = 0.0
        for stretch in stretches(runs, name):
            xs = [place + lift for place, _ in stretch]
            axes.plot(
                xs, [share.share for _, share in stretch], "o-", color=colour, linewidth=2, markersize=6, zorder=3
            )
            for x, (_, share) in zip(xs, stretch, strict=True):
                if share.rounds:
                    axes.plot([x, x], [min(share.rounds), max(share.rounds)], color=colour, linewidth=1.2, alpha=0.7)
            latest = stretch[-1][1].share
        axes.plot([], [], "o-", color=colour, linewidth=2, label=f"{latest:.2f}  {name.partition(BESIDE)[0]}")
    axes.legend(
        loc="upper left", bbox_to_anchor=(1.01, 1.02), frameon=False, labelcolor=INK, fontsize=10, title="newest",
        alignment="left",
    ).get_title().set_color(INK)  # fmt: skip


def _dress(axes: Axes, runs: Sequence[Run], words: str, *, has_names: bool) -> None:
    axes.patch.set_alpha(0.0)
    axes.set_ylim(0, max(1.05, axes.get_ylim()[1]))
    axes.set_xlim(-0.5, max(len(runs) - 0.5, 1))
    axes.set_ylabel(words, color=INK)
    axes.tick_params(colors=INK, length=0, pad=6)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_yticks((0, 0.25, 0.5, 0.75, 1.0))
    for share in (0, 0.25, 0.5, 0.75, 1.0):
        axes.axhline(share, color=INK, alpha=0.8 if share == 0 else 0.22, linewidth=0.8, zorder=0)
    step = -(-len(runs) // MOST_NAMES)
    places = range(len(runs) - 1, -1, -step)  # the newest has its name
    labels = [f"{runs[place].name}\n{runs[place].date[:10]}\n{runs[place].date[11:16]}" for place in places]
    axes.set_xticks(list(places), labels if has_names else [""] * len(labels), fontsize=9)
    for place in range(1, len(runs)):
        if runs[place].machine != runs[place - 1].machine:
            axes.axvline(place - 0.5, color=INK, alpha=0.6, linewidth=0.8, linestyle="--", zorder=0)
            axes.annotate(
                runs[place].machine, (place - 0.5, 0), (4, 3), textcoords="offset points", color=INK, fontsize=8.5
            )
