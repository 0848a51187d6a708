"""Two plots of a run: what each peer can do, and how late it answers.

Drawn in colours that are seen on white and on black alike, with nothing filled behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from bench.peers.record import Record
from bench.peers.table import duration, failed, merged

INK, OURS = "#7a838f", "#14a05a"
COLOURS = {
    "limit": "#7a838f", "nginx": "#9a7b4f", "triton": "#dd6b2d", "triton-live": "#c9a227", "grpcaio": "#3b8fd4",
    "mlserver": "#b05cc6", "bentoml": "#d4477a", "litserve": "#6f7fe0", "rayserve": "#2aa5a5",
}  # fmt: skip
SHORT = {
    "gateway": "this gateway", "limit": "limit of HTTP/2", "nginx": "nginx, proxy's ceiling", "triton": "Triton",
    "triton-live": "Triton's front end alone", "grpcaio": "grpc.aio", "mlserver": "MLServer", "bentoml": "BentoML",
    "litserve": "LitServe", "rayserve": "Ray Serve",
}  # fmt: skip


def draw(measured: Record, folder: Path) -> list[Path]:
    """Writes two plots, SVG and PNG each, and returns their paths."""
    matplotlib.rcParams.update({"svg.hashsalt": "peers", "font.size": 11, "font.family": "sans-serif"})
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row for row in merged(measured) if row["work"] == "small"]
    paths = _save(_throughput(rows), folder / "throughput")
    paths += _save(_offered(rows), folder / "offered")
    return paths


def _throughput(rows: Sequence[Mapping[str, Any]]) -> Figure:
    figure, axes = _sheet(
        "How many requests, and how late the slowest?",
        "30 floats, MLP 30-128-128-1; a dot for each of 1, 16, 128 and 1,024 requests at once. "
        "Right is better, up is worse.",
    )
    for (peer, protocol), points in _lines(rows, "at_once").items():
        points = [row for row in points if row["ok"]]
        _line(
            axes, peer, protocol, [row["requests_per_s"] for row in points],
            [row["latency_us"]["p99"] / 1000 for row in points],
        )  # fmt: skip
    _dress(axes, "requests/s", "p99 of the latency")
    _legend(axes)
    return figure


def _offered(rows: Sequence[Mapping[str, Any]]) -> Figure:
    figure, axes = _sheet(
        "Latency when requests come as they come",
        "Poisson arrivals at 50, 80 and 95 % of each server's own peak, counted from the planned arrival. "
        "Line: p99; ring: p50; cross: over 1 % failed.",
    )
    for (peer, protocol), points in _lines(rows, "of_peak").items():
        points = [row for row in points if row["ok"]]
        rates = [row["rate_per_s"] for row in points]
        _line(axes, peer, protocol, rates, [row["latency_us"]["p99"] / 1000 for row in points])
        axes.plot(rates, [row["latency_us"]["p50"] / 1000 for row in points], "o", markerfacecolor="none",
                  markeredgecolor=_colour(peer), markersize=5)  # fmt: skip
        bad = [row for row in points if failed(row) > 0.01 * row["ok"]]
        axes.plot(
            [row["rate_per_s"] for row in bad], [row["latency_us"]["p99"] / 1000 for row in bad], "x", color=INK,
            markersize=11, markeredgewidth=2, zorder=5,
        )  # fmt: skip
    _dress(axes, "requests/s offered", "latency")
    _legend(axes)
    return figure


def _lines(rows: Sequence[Mapping[str, Any]], by: str) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row[by]:
            found.setdefault((row["peer"], row["protocol"]), []).append(row)
    return {key: sorted(points, key=lambda row: row[by]) for key, points in found.items()}


def _line(axes: Axes, peer: str, protocol: str, xs: Sequence[float], ys: Sequence[float]) -> None:
    style = "o-" if protocol == "gRPC" else "s--"
    width, size = (3.2, 8) if peer == "gateway" else (1.6, 5)
    name = SHORT.get(peer, peer) + (" REST" if protocol == "REST" else "")
    axes.plot(xs, ys, style, color=_colour(peer), linewidth=width, markersize=size, label=name,
              zorder=4 if peer == "gateway" else 3)  # fmt: skip


def _colour(peer: str) -> str:
    return OURS if peer == "gateway" else COLOURS.get(peer, INK)


def _sheet(title: str, words: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(10, 6.4))
    figure.patch.set_alpha(0.0)
    axes = figure.add_axes((0.11, 0.125, 0.645, 0.74))
    figure.text(0.012, 0.955, title, color=INK, fontsize=17, weight="bold")
    figure.text(0.012, 0.905, words, color=INK, fontsize=10)
    return figure, axes


def _dress(axes: Axes, x: str, y: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: duration(value * 1000).replace(".0 ", " ")))
    axes.grid(color=INK, alpha=0.22, linewidth=0.8)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    _bare(axes)


def _bare(axes: Axes) -> None:
    axes.patch.set_alpha(0.0)
    axes.tick_params(colors=INK, length=0, pad=6)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    for side in axes.spines.values():
        side.set_visible(False)


def _legend(axes: Axes) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, labelcolor=INK, fontsize=10)


def _save(figure: Figure, path: Path) -> list[Path]:
    written = []
    for kind, options in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 160})):
        file = path.with_suffix(f".{kind}")
        figure.savefig(file, transparent=True, **options)
        written.append(file)
    return written
