"""How many second attempts there may be: a fifth of the first ones of the last seconds, and always a few.

Without a bound, retries double the load of servers that fail because of their load. What was on its way to a server
when it died is carried over beside that: it loads nobody twice, because the dead one works at nothing. That grant is
given once for each death, so a connection that breaks at every request earns none.
"""

from __future__ import annotations

from collections import deque

SHARE = 0.2
FLOOR = 3
WINDOW_S = 10.0
SLOTS = 20


class RetryBudget:
    def __init__(self, share: float = SHARE, floor: int = FLOOR, window_s: float = WINDOW_S) -> None:
        self._share, self._floor = share, floor
        self._slot_s = window_s / SLOTS
        self._slots: deque[list[float]] = deque()
        """[number of the slot, first attempts, retries, granted]; the last is now."""
        self.refused = 0
        """Retries that it did not allow, since the start."""

    def first(self, now_s: float) -> None:
        """A first attempt begins."""
        self._now(now_s)[1] += 1

    def grant(self, attempts: int, now_s: float) -> None:
        """So many attempts were on their way to a server that died."""
        self._now(now_s)[3] += attempts

    def left(self, now_s: float) -> float:
        self._now(now_s)
        first, retries, granted = (sum(slot[column] for slot in self._slots) for column in (1, 2, 3))
        return max(self._floor, self._share * first) + granted - retries

    def take(self, now_s: float) -> bool:
        """One more retry, unless the budget is used up."""
        if self.left(now_s) < 1.0:
            self.refused += 1
            return False
        self._now(now_s)[2] += 1
        return True

    def _now(self, now_s: float) -> list[float]:
        number = now_s // self._slot_s
        if not self._slots or self._slots[-1][0] < number:
            self._slots.append([number, 0.0, 0.0, 0.0])
        while self._slots[0][0] <= number - SLOTS:
            self._slots.popleft()
        return self._slots[-1]
