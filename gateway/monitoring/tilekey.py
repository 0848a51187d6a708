"""What a tile in the store is of: its key beside model, version and the worker's incarnation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TileKey:
    """A later tile of the same key replaces the earlier one; tiles of one `plan` add up."""

    start_s: int
    """Of its window, since 1970."""
    stage: int
    plan: str
    """The plan's digest, in hex: the key of the report of kind `plan` that says how to read the tile."""
    arm: str
    """Empty: requests that fell on no arm."""

    def __str__(self) -> str:
        return f"{self.start_s}/{self.stage}/{self.plan}/{self.arm}"

    @classmethod
    def parse(cls, text: str) -> TileKey:
        """ValueError for what is no such key. An arm's name may have slashes."""
        try:
            start_s, stage, plan, arm = text.split("/", 3)
            return cls(int(start_s), int(stage), plan, arm)
        except ValueError:
            raise ValueError(f"key of a tile: got {text!r}, expected START/STAGE/PLAN/ARM") from None
