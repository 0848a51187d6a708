"""The picture: pages a day when nothing is wrong, rule by rule, world by world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.lines
from matplotlib.figure import Figure

# Seen on white and on black alike, nothing filled behind.
INK, OURS = "#7a838f", "#14a05a"
WORLDS = {"iid": ("still", "o", "#2f81f7"), "wander": ("wandering", "s", "#dd6b2d"),
          "correlated": ("wandering slowly", "D", "#a371f7"), "daily": ("daily cycle", "^", "#d29922"),
          "bursts": ("bursts of equal rows", "X", "#e5534b")}  # fmt: skip
RULES = ("gateway", "psi", "js", "alibi", "chi2", "nannyml", "ks", "wasserstein")
LEAST = 0.008


def draw(studies: Mapping[str, Sequence[Mapping[str, Any]]], folder: Path) -> list[Path]:
    """Writes drift.svg and drift.png and returns their paths."""
    matplotlib.rcParams.update({"svg.hashsalt": "drift", "font.size": 11, "font.family": "sans-serif"})
    rows = {(row["rule"], row["world"]): row for row in studies["false_alarms"]}
    figure = Figure(figsize=(10, 5.8))
    figure.patch.set_alpha(0.0)
    axes = figure.add_axes((0.4, 0.15, 0.57, 0.64))
    axes.patch.set_alpha(0.0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xscale("log")
    axes.set_xlim(LEAST * 0.7, 3000)
    axes.set_xticks((LEAST, 1 / 30, 1, 24, 1440), ["none", "", "1 a day", "1 an hour", "each minute"])
    axes.annotate("promised: 1 in 30 days", (1 / 30, 7.45), (4, 0), textcoords="offset points", color=OURS, fontsize=9)
    axes.minorticks_off()
    axes.tick_params(colors=INK, length=0, pad=6)
    for mark in (1 / 30, 1, 24, 1440):
        axes.axvline(mark, color=INK, alpha=0.25, linewidth=0.8, zorder=0)
    names = []
    for place, rule in enumerate(reversed(RULES)):
        axes.axhline(place, color=INK, alpha=0.15, linewidth=0.8, zorder=0)
        told = ""
        for at, (world, (_, marker, colour)) in enumerate(WORLDS.items()):
            if row := rows.get((rule, world)):
                told = row["rule_told"]
                lift = 0.12 * (at - 2)
                axes.plot(max(row["pages_per_day"], LEAST), place + lift, marker, color=colour, markersize=8, zorder=3)
        names.append(told)
    axes.set_yticks(range(len(RULES)), names)
    for label in axes.get_yticklabels():
        is_ours = label.get_text().startswith("this gateway")
        label.set_color(OURS if is_ours else INK)
        label.set_fontweight("bold" if is_ours else "normal")
        label.set_fontsize(10.5)
    axes.set_xlabel("pages a day for nothing, 50 columns, a look each minute", color=INK, labelpad=10)
    figure.text(0.012, 0.945, "Who cries wolf?", color=INK, fontsize=17, weight="bold")
    figure.text(0.012, 0.895, "Traffic in which nothing is wrong, of five kinds; a window is a minute of 1,000 rows.",
                color=INK, fontsize=10.5)  # fmt: skip
    for at, (text, marker, colour) in enumerate(WORLDS.values()):
        x = 0.02 + (0.0, 0.1, 0.24, 0.44, 0.6)[at]
        figure.add_artist(matplotlib.lines.Line2D([x], [0.85], marker=marker, color=colour, markersize=8, linestyle=""))
        figure.text(x + 0.015, 0.85, text, color=INK, fontsize=10.5, va="center")
    paths = []
    for kind, options in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 160})):
        path = folder / f"drift.{kind}"
        figure.savefig(path, transparent=True, **options)
        paths.append(path)
    return paths
