"""Which region of shared memory a batch gets, and when it may be used again: never while the server may still look.

    MAKING ──registered──▶ OUT ──answered──▶ HELD ──nobody looks into it──▶ FREE ──taken──▶ OUT
       │                    │                  │                             │
       └──it failed─────────┴──no answer───────┴──its server is left─────────┴──idle──▶ RETIRED
                                                                     GONE ◀──the server let go──┘

A request that was cancelled, came too late or lost its connection may still run there, and then reads and writes its
region whenever it likes: no other request ever gets it. It counts until the server is known to have let go of it, so
that a server that never does costs its share of the limit and no more. Pure: no memory and no clock of its own.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

LEAST_BYTES = 64 << 10
FRESH_S = 1.0
"""One that was used so lately makes no room for another size: two sizes that take turns would only make regions."""
IDLE_S = 30.0
"""A region that nobody took for so long is given back to the machine."""


class Use(enum.Enum):
    MAKING = "making"
    """Its memory is being made, and made known to the server."""
    OUT = "out"
    """A request with it is on its way: the server reads and writes."""
    HELD = "held"
    """The answer is there; somebody here looks into it."""
    FREE = "free"
    RETIRED = "retired"
    """Nobody gets it any more; the server may still have it."""
    GONE = "gone"


MOVES: dict[Use, frozenset[Use]] = {
    Use.MAKING: frozenset({Use.OUT, Use.RETIRED}),
    Use.OUT: frozenset({Use.HELD, Use.RETIRED}),
    Use.HELD: frozenset({Use.FREE, Use.RETIRED}),
    Use.FREE: frozenset({Use.OUT, Use.RETIRED}),
    Use.RETIRED: frozenset({Use.GONE}),
    Use.GONE: frozenset(),
}


@dataclass(slots=True, eq=False)
class Region:
    """Only its pool moves it. Equal only to itself."""

    home: object
    """The server that knows it, over one connection."""
    size: int
    use: Use = Use.MAKING
    since_s: float = 0.0
    segment: Any = None
    """Its memory, for who makes it."""


class Regions:
    """At most `limit_bytes` together, whatever they are used for."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._all: dict[Region, None] = {}
        self._left: set[object] = set()
        """Homes that get nothing new."""

    def __iter__(self) -> Iterator[Region]:
        return iter([*self._all])

    def __len__(self) -> int:
        return len(self._all)

    # --- for a request

    def take(self, home: object, n_bytes: int, now_s: float) -> Region | None:
        """The smallest free one that is large enough."""
        fitting = [each for each in self._all if each.use is Use.FREE and each.home is home and each.size >= n_bytes]
        region = min(fitting, key=lambda each: each.size, default=None)
        if region:
            self._move(region, Use.OUT, now_s)
        return region

    def make(self, home: object, n_bytes: int, now_s: float) -> Region | None:
        """A new one, MAKING. None: there is no room for it."""
        size = size_for(n_bytes)
        if home in self._left or self.used_bytes + size > self.limit_bytes:
            return None
        region = Region(home, size, since_s=now_s)
        self._all[region] = None
        self.used_bytes += size
        return region

    def made(self, region: Region, now_s: float) -> None:
        """The server knows it."""
        self._move(region, Use.OUT, now_s)

    def answered(self, region: Region, now_s: float) -> None:
        """The server has answered the request, and is done with it."""
        self._move(region, Use.HELD, now_s)

    def released(self, region: Region, now_s: float) -> bool:
        """Nobody here looks into it any more. True: it is RETIRED by that, and its server is to be told."""
        if region.use is Use.HELD and region.home not in self._left:
            self._move(region, Use.FREE, now_s)
        elif region.use in (Use.HELD, Use.OUT):  # OUT: nobody said how its request ended
            self._move(region, Use.RETIRED, now_s)
            return True
        return False

    # --- to be let go of

    def retire(self, region: Region, now_s: float) -> bool:
        """Nobody gets it any more. False: that is so already."""
        if region.use in (Use.RETIRED, Use.GONE):
            return False
        self._move(region, Use.RETIRED, now_s)
        return True

    def leave(self, home: object, now_s: float) -> list[Region]:
        """That server gets nothing new over that connection. What was free is RETIRED by that, the rest is later."""
        if any(each.home is home for each in self._all):
            self._left.add(home)
        return self._retire([each for each in self._all if each.home is home and each.use is Use.FREE], now_s)

    def idle(self, now_s: float, idle_s: float = IDLE_S) -> list[Region]:
        """Those that nobody took for so long, now RETIRED."""
        found = [each for each in self._all if each.use is Use.FREE and now_s - each.since_s >= idle_s]
        return self._retire(found, now_s)

    def crowd_out(self, n_bytes: int, now_s: float) -> list[Region]:
        """Free ones in the way of one of `n_bytes`, now RETIRED: those used longest ago, no more than needed, and none
        where that would not be enough.
        """
        missing = self.used_bytes + size_for(n_bytes) - self.limit_bytes
        missing -= sum(each.size for each in self._all if each.use is Use.RETIRED)
        old = [each for each in self._all if each.use is Use.FREE and now_s - each.since_s >= FRESH_S]
        if sum(each.size for each in old) < missing:
            return []
        found: list[Region] = []
        for region in sorted(old, key=lambda each: each.since_s):
            if missing <= 0:
                break
            found.append(region)
            missing -= region.size
        return self._retire(found, now_s)

    def forget(self, region: Region, now_s: float) -> None:
        """The server has let go of it."""
        self._move(region, Use.GONE, now_s)
        del self._all[region]
        self.used_bytes -= region.size
        if region.home in self._left and not any(each.home is region.home for each in self._all):
            self._left.discard(region.home)

    def _retire(self, regions: list[Region], now_s: float) -> list[Region]:
        for region in regions:
            self._move(region, Use.RETIRED, now_s)
        return regions

    def _move(self, region: Region, use: Use, now_s: float) -> None:
        if use not in MOVES[region.use]:
            raise AssertionError(f"no way from {region.use.name} to {use.name}")
        region.use, region.since_s = use, now_s


def size_for(n_bytes: int) -> int:
    """The next of four sizes in each doubling: batches of about one size find each other's regions, and at most a
    quarter is wasted.
    """
    if n_bytes <= LEAST_BYTES:
        return LEAST_BYTES
    step = 1 << max((n_bytes - 1).bit_length() - 3, 0)
    return -(-n_bytes // step) * step
