"""What a version's tiles count, column by column: made from its profile, or from its signature where it has none.

A plan is the part of a profile that decides into which cell a value falls. Its document travels with the tiles, so
that whoever finds a tile in the store can read it, whatever became of the profile since.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from gateway.backends.base import Signature
from gateway.monitoring.profile import Calibration, Categorical, Numeric, Profile, Summary
from gateway.native.tileplan import TilePlan

MAX_PLAIN_OUTPUTS = 64
"""Values of outputs that are watched without a profile: an embedding of a thousand would be a thousand columns."""


def plan_of(profile: Profile) -> TilePlan:
    """Columns and outputs in the profile's order."""
    columns = [(column, "input") for column in profile.columns] + [(column, "output") for column in profile.outputs]
    return TilePlan(_column(column, role) for column, role in columns)


def plain_plan(signature: Signature) -> TilePlan:
    """Without a profile: of each output value NaN, infinities, the least and the greatest (equal: it is constant)."""
    return TilePlan(_plain(signature))


def to_document(plan: TilePlan) -> bytes:
    """JSON from which `from_document` makes a plan of the same digest."""
    return json.dumps({"format": 1, "columns": plan.columns}, separators=(",", ":")).encode()


def from_document(document: bytes) -> TilePlan:
    """ValueError says what is wrong with it."""
    try:
        content = json.loads(document)
        if content["format"] != 1:
            raise ValueError(f"format: got {content['format']!r}, expected 1")
        return TilePlan(content["columns"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"a plan's document cannot be read: {error}") from error


def _column(column: Any, role: str) -> dict[str, Any]:
    found: dict[str, Any] = {"name": column.name, "role": role, "tensor": column.tensor, "kind": column.kind}
    if column.index is not None:
        found["index"] = column.index
    match column:
        case Numeric() | Summary():
            found |= {"edges": list(column.edges), "centre": column.centre, "scale": column.scale}
            if isinstance(column, Summary):
                found["statistic"] = column.statistic
                if column.projection_seed is not None:
                    found["projection_seed"] = column.projection_seed
        case Calibration():
            found |= {"edges": list(column.EDGES), "centre": 0.0, "scale": 2.0**-20}
        case Categorical():
            found["vocabulary"] = list(column.vocabulary)
    return found


def _plain(signature: Signature) -> Iterator[dict[str, Any]]:
    left = MAX_PLAIN_OUTPUTS
    for spec in signature.outputs:
        inner = spec.shape[1:] if signature.batched else spec.shape
        size = math.prod(inner)
        if spec.datatype == "BYTES" or any(n < 0 for n in inner) or size == 0 or size > left:
            continue
        left -= size
        for index in range(size):
            name = spec.name if size == 1 else f"{spec.name}[{index}]"
            yield {"name": name, "role": "output", "tensor": spec.name, "index": index, "kind": "plain"}
