"""Decisions taken again from what was stored with them: they must come out the same, to the last bit.

What differs says that the record was changed, or the code: either is worth knowing before a decision is believed.
On another machine or another NumPy a logarithm may differ in its last digit, so evidence may be compared to a
tolerance; what was decided may not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.rollout.decide import decide
from gateway.rollout.plan import Plan
from gateway.rollout.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Difference:
    seq: int  # place of the decision in what was replayed
    path: str  # of the field: cursor.units
    stored: Any
    replayed: Any

    def __str__(self) -> str:
        return f"decision {self.seq}: {self.path}: stored {self.stored!r}, replayed {self.replayed!r}"


def replay(
    plan: Plan, records: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]], *, tolerance: float = 0.0
) -> list[Difference]:
    """What comes out otherwise; empty when nothing does. `records`: documents of (snapshot, decision), in order.

    `tolerance`: relative, for numbers that are not whole. Each snapshot's cursor must be the one that the decision
    before it left, as far as both are known: a decision taken out of the record shows too.
    """
    found: list[Difference] = []
    left: Mapping[str, Any] | None = None
    for seq, (snapshot, stored) in enumerate(records):
        if left is not None:
            found += _differences(seq, "snapshot.cursor", _settled(left), _settled(snapshot["cursor"]), tolerance)
        again = decide(plan, Snapshot.from_dict(snapshot)).as_dict()
        found += _differences(seq, "", stored, again, tolerance)
        left = stored["cursor"]
    return found


_PASSING = frozenset({"looked_s", "acknowledged_s", "not_before_s", "deadline_s", "holds", "suspicions"})
"""Fields of a cursor that looks change which are not kept."""


def _settled(cursor: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in cursor.items() if name not in _PASSING and name != "entered_s"}


def _differences(seq: int, path: str, stored: Any, again: Any, tolerance: float) -> list[Difference]:
    if isinstance(stored, Mapping) and isinstance(again, Mapping):
        found = []
        for name in {**stored, **again}:
            where = f"{path}.{name}" if path else name
            found += _differences(seq, where, stored.get(name), again.get(name), tolerance)
        return found
    if isinstance(stored, (list, tuple)) and isinstance(again, (list, tuple)) and len(stored) == len(again):
        found = []
        for index, (one, other) in enumerate(zip(stored, again, strict=True)):
            found += _differences(seq, f"{path}[{index}]", one, other, tolerance)
        return found
    return [] if _is_equal(stored, again, tolerance) else [Difference(seq, path, stored, again)]


def _is_equal(stored: Any, again: Any, tolerance: float) -> bool:
    if isinstance(stored, float) and isinstance(again, float) and tolerance:
        return math.isclose(stored, again, rel_tol=tolerance, abs_tol=tolerance)
    return bool(stored == again)
