"""How long to wait before a process that died is started again."""

from __future__ import annotations

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 10.0
HEALTHY_AFTER_S = 30.0
"""A process that served this long and died is a new incident, not the old one again."""


class Backoff:
    """Pause before each restart: 0.1 s, doubling to 10 s, from the beginning again after 30 s of health."""

    def __init__(self) -> None:
        self._next_s = BACKOFF_FIRST_S

    def pause_s(self, healthy_s: float) -> float:
        """`healthy_s`: how long it was ready before it died."""
        if healthy_s >= HEALTHY_AFTER_S:
            self._next_s = BACKOFF_FIRST_S
        pause_s, self._next_s = self._next_s, min(self._next_s * 2, BACKOFF_MAX_S)
        return pause_s
