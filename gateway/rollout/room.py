"""What a version's executors in one worker get through, as it travels through the store. Apart from what reckons with
it, because a worker must not pay for what a judge imports.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import orjson

KIND = "room"
MOST_ROWS = 32
"""Of a batch that is reckoned with: what was measured on a few rows says little of thousands."""


@dataclass(frozen=True, slots=True)
class Room:
    """One version in one worker, as its lane knows it from the warm-up on."""

    executors: int
    rows: int
    """Of a full batch."""
    run_us: float
    """Of one, as it is expected; 0: nothing has run yet."""
    n_requests: int = 0
    """Answered so far, and their rows."""
    n_rows: int = 0

    def body(self) -> bytes:
        return orjson.dumps(astuple(self))

    @classmethod
    def from_body(cls, body: bytes) -> Room:
        """ValueError."""
        found = orjson.loads(body)
        if not isinstance(found, list) or len(found) != len(cls.__slots__):
            raise ValueError(f"room: got {body[:80]!r}, expected {len(cls.__slots__)} numbers")
        return cls(*found)

    @property
    def rows_per_s(self) -> float:
        return self.executors * self.rows * 1e6 / self.run_us
