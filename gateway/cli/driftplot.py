"""Baseline beside now as a picture, the worst columns first. Read on white and on black alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway.errors import ConfigError

SUFFIXES = (".png", ".svg")
MAX_PANELS = 24
"""More are specks; --json has all."""
_INK, _BASE, _NOW, _ALARM = "#7a838f", "#8b949e", "#2f81f7", "#e5534b"


def draw(reports: Sequence[dict[str, Any]], path: Path) -> None:
    """Write `path`. ConfigError: another suffix, no matplotlib, not writable."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--plot {path}: got {path.suffix or 'no suffix'}, expected {' or '.join(SUFFIXES)}")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("--plot needs matplotlib: pip install matplotlib") from None
    panels = [(report, column) for report in reports for column in report["columns"] if column["side"] != "schema"]
    panels = panels[:MAX_PANELS]
    across = min(4, max(1, math.ceil(math.sqrt(len(panels)))))
    down = max(1, math.ceil(len(panels) / across))
    figure = Figure(figsize=(3.4 * across, 2.3 * down + 0.7), layout="constrained")
    figure.patch.set_alpha(0.0)
    title = "\n".join(f"{each['model']} version {each['version']}: {each['sentence']}" for each in reports)
    figure.suptitle(_plain(title), fontsize=11, color=_INK)
    for at, (report, column) in enumerate(panels, 1):
        prefix = f"{report['version']}: " if len(reports) > 1 else ""
        _panel(figure.add_subplot(down, across, at), column, prefix)
    try:
        figure.savefig(path, dpi=130, transparent=True)
    except OSError as error:
        raise ConfigError(f"--plot {path}: cannot be written: {error.strerror}") from None


def _panel(axes: Any, column: dict[str, Any], prefix: str) -> None:
    base, now, labels = column["shape_baseline"], column["shape_now"], column["labels"]
    colour = _ALARM if column["status"] == "alarm" else _NOW
    axes.patch.set_alpha(0.0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.spines["bottom"].set_visible(True)
    axes.spines["bottom"].set_color(_INK)
    axes.tick_params(colors=_INK, labelsize=6.5, length=0)
    axes.set_yticks([])
    places = [at - 0.5 for at in range(len(labels) + 1)]
    if now:
        axes.stairs(now, places, fill=True, color=colour, alpha=0.55, label="now")
    if base:
        axes.stairs(base, places, color=_BASE, linewidth=1.6, label="baseline")
    marks = range(len(labels)) if len(labels) <= 8 else (1, len(labels) // 2, len(labels) - 2)
    axes.set_xticks(list(marks), [_tick(labels[at], column["kind"]) for at in marks])
    axes.set_title(_plain(f"{prefix}{column['name']}"), fontsize=9, color=colour, loc="left", weight="bold")
    axes.set_xlabel(_plain(column["sentence"]), fontsize=6.5, color=_INK)


def _tick(label: str, kind: str) -> str:
    """Of a range its beginning."""
    text = label.split(" to ")[0] if kind != "categorical" else label
    return _plain(text if len(text) <= 12 else text[:11] + "…")


def _plain(text: str) -> str:
    """Dollar signs would start mathematics, control characters a mess."""
    cut = text if len(text) <= 160 else text[:159] + "…"
    return "".join(each if each.isprintable() or each == "\n" else "?" for each in cut).replace("$", r"\$")
