"""When a version that lost its last traffic may be unloaded. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway.routing.route import RouteError, parse

if TYPE_CHECKING:
    from gateway.store import RouteRecord


def expired(history: Sequence[RouteRecord], wanted: set[str], now_s: float) -> list[str]:
    """Of one model's `wanted` versions those that the route in force does not name, and whose last traffic ended longer
    ago than it says under `keep`. `history` is newest first.
    """
    if not history:
        return []
    try:
        keep_us = parse(history[0].document).keep_us
    except RouteError:  # written by a newer gateway: better to keep too much
        return []
    if keep_us is None:
        return []
    idle_since_s: dict[str, float] = {}
    ended_at_s = history[0].at
    named = _named(history[0])
    for record in history[1:]:
        for version in _named(record) - named:
            idle_since_s.setdefault(version, ended_at_s)
        ended_at_s = record.at
    return sorted(v for v, since_s in idle_since_s.items() if v in wanted and now_s - since_s >= keep_us / 1e6)


def _named(record: RouteRecord) -> set[str]:
    try:
        return parse(record.document).versions_used()
    except RouteError:
        return set()
