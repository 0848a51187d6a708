"""Which endpoint gets the next rows: of two drawn at random the one with fewer rows on their way for its weight.

Two random choices are nearly as even as looking at all, and unlike looking at all they do not send everybody to the
same one at once: each gateway worker knows only its own rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from gateway.backends.triton.endpoint import Endpoint

LEAST_RAMP = 0.1
"""Share of its weight with which an endpoint begins its slow start."""


def ramp(endpoint: Endpoint, slow_start_s: float, now_s: float) -> float:
    """Share of its weight that an endpoint has, in [LEAST_RAMP, 1]: it grows evenly over the slow start."""
    passed_s = now_s - endpoint.ramp_from_s
    if passed_s >= slow_start_s:
        return 1.0
    return max(LEAST_RAMP, passed_s / slow_start_s)


def choose(
    candidates: Sequence[Endpoint], rows: int, slow_start_s: float, now_s: float, dice: Random
) -> Endpoint | None:
    """None: there is no candidate."""
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    one, other = candidates if len(candidates) == 2 else dice.sample(candidates, 2)
    weight, other_weight = (max(each.weight * ramp(each, slow_start_s, now_s), 1e-9) for each in (one, other))
    if one.outstanding_rows or other.outstanding_rows:
        load = (one.outstanding_rows + rows) / weight
        other_load = (other.outstanding_rows + rows) / other_weight
        if load != other_load:
            return one if load < other_load else other
    return one if dice.random() * (weight + other_weight) < weight else other
