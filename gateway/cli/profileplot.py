"""A profile as a picture: one panel for each column."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.profileview import find
from gateway.errors import ConfigError
from gateway.monitoring.drawing import ruler, spread
from gateway.monitoring.profile import Calibration, Categorical

if TYPE_CHECKING:
    from gateway.monitoring.profile import Profile

SUFFIXES = (".png", ".svg")
MAX_PANELS = 120
"""More are specks; --column picks."""

_CELLS = 40
_COLOUR = "#3b6ea5"
_OUTPUT_COLOUR = "#b5651d"


def plot_profile(profile: Profile, path: Path, names: Sequence[str]) -> None:
    """Write `path`. ConfigError: another suffix, no matplotlib, not writable."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--plot {path}: got {path.suffix or 'no suffix'}, expected {' or '.join(SUFFIXES)}")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("--plot needs matplotlib: pip install 'gateway[profile]'") from None
    columns = [find(profile, name) for name in names] if names else list(profile.watched)[:MAX_PANELS]
    across = min(6, math.ceil(math.sqrt(len(columns))))
    down = math.ceil(len(columns) / across)
    figure = Figure(figsize=(2.6 * across, 1.9 * down + 0.5), layout="constrained")
    figure.suptitle(f"{profile.model} version {profile.version}, {profile.rows} rows", fontsize=10)
    outputs = {column.name for column in profile.outputs}
    for at, column in enumerate(columns, 1):
        axes = figure.add_subplot(down, across, at)
        _panel(axes, column, profile.rows, _OUTPUT_COLOUR if column.name in outputs else _COLOUR)
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise ConfigError(f"--plot {path}: cannot be written: {error.strerror}") from None


def _panel(axes: Any, column: Any, rows: int, colour: str) -> None:
    axes.set_title(_short(column.name, 34), fontsize=8)
    axes.tick_params(labelsize=6)
    axes.set_yticks([])
    match column:
        case Categorical():
            words = [_short(str(word), 10) for word in column.vocabulary[:20]]
            counts = list(column.counts[:20])
            if rest := sum(column.counts[20:]) + column.other:
                words.append("other")
                counts.append(rest)
            axes.bar(range(len(words)), [count / rows for count in counts], color=colour)
            axes.set_xticks(range(len(words)), words, rotation=60 if len(words) > 4 else 0)
            lost = column.missing
        case Calibration():
            axes.stairs(column.counts, [b / 20 for b in range(21)], fill=True, color=colour)
            lost = column.outside
        case _:
            marks = ruler(column.edges, column.counts, _CELLS)
            axes.stairs(spread(column.edges, column.counts, marks), marks, fill=True, color=colour)
            lost = column.nan + column.neg_inf + column.pos_inf
    if lost:
        axes.text(0.98, 0.95, f"missing {lost / rows:.1%}", transform=axes.transAxes, ha="right", va="top", fontsize=6)


def _short(text: str, length: int) -> str:
    # Dollar signs would start mathematics.
    text = text if len(text) <= length else text[: length - 1] + "…"
    return text.replace("$", r"\$")
