"""After how long an attempt is slower than nineteen of twenty: when a hedge is worth its cost."""

from __future__ import annotations

from collections import deque

SAMPLES = 256
LEAST = 32
REFRESH = 16


class Quantile:
    """Of the last SAMPLES durations. Sorted again every REFRESH of them, not at every question."""

    def __init__(self, share: float = 0.95, samples: int = SAMPLES) -> None:
        self._share = share
        self._recent: deque[float] = deque(maxlen=samples)
        self._value: float | None = None
        self._fresh = 0

    def add(self, took_s: float) -> None:
        self._recent.append(took_s)
        self._fresh += 1
        if self._fresh >= REFRESH and len(self._recent) >= LEAST:
            ordered = sorted(self._recent)
            self._value = ordered[min(int(len(ordered) * self._share), len(ordered) - 1)]
            self._fresh = 0

    @property
    def value_s(self) -> float | None:
        """None: too few yet."""
        return self._value
