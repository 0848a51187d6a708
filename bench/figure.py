"""One measured figure: what came out, of which rounds, beside which limit, against which target."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Figure:
    """`rounds` are in `unit`; with `limit_rounds`, round i of both ran side by side and the share is taken per pair."""

    bench: str
    name: str
    unit: str
    rounds: list[float]
    better: Literal["higher", "lower"] = "higher"
    limit_rounds: list[float] = field(default_factory=list)
    has_share: bool = False  # else the limit is only shown beside it
    target: float | None = None  # of the share when has_share, else of the value
    note: str = ""

    @property
    def value(self) -> float:
        return statistics.median(self.rounds)

    @property
    def limit(self) -> float | None:
        return statistics.median(self.limit_rounds) if self.limit_rounds else None

    @property
    def shares(self) -> list[float]:
        """gateway / limit of each pair of rounds; a machine that was slow for both does not show."""
        if not self.has_share:
            return []
        return [a / b for a, b in zip(self.rounds, self.limit_rounds, strict=True)]

    @property
    def share(self) -> float | None:
        return statistics.median(self.shares) if self.has_share else None

    @property
    def judged(self) -> float:
        """What is compared with the target and with the last run: the share where there is one."""
        share = self.share
        return self.value if share is None else share

    @property
    def is_met(self) -> bool | None:
        """None without a target. Told, never asserted."""
        if self.target is None:
            return None
        return self.judged >= self.target if self.better == "higher" else self.judged <= self.target

    def as_dict(self) -> dict[str, Any]:
        """For the results file: the fields and what follows from them."""
        derived = {"value": self.value, "limit": self.limit, "share": self.share, "shares": self.shares}
        return asdict(self) | derived | {"is_met": self.is_met}


def change(figure: Figure, last: dict[str, Any] | None) -> float | None:
    """Relative change of the judged value since the last run's record of the same figure; None when it has none."""
    if last is None or last["unit"] != figure.unit or last["has_share"] != figure.has_share:
        return None
    before = last["share"] if figure.has_share else last["value"]
    return figure.judged / before - 1 if before else None
