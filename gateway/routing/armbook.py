"""What outlives a route table: the arms that requests count on, and the tallies and loads beside them.

A new table has the same Arm for the same (model, version, name, stage, weight), so that counting goes on over a swap.
An arm that no table leads to any more is kept until its last request is answered, then its counters are added to those
of its name and it is let go of: a thousand route changes do not leave a thousand arms. Affinity: owning loop only.
"""

from __future__ import annotations

import sys

from gateway.native.arm import Arm
from gateway.native.route import ShadowLoad, Tally
from gateway.native.scales import Scales

MAX_NAMES = 256
"""Names of arms of one model that are told apart in what is reported; later ones are one, named OTHER."""

OTHER = "_other"

_ALL_STAGES = -1

Name = tuple[str, str, str]
"""Model, version, and the arm's name."""


class ArmBook:
    """One per worker."""

    def __init__(self) -> None:
        self._arms: dict[tuple[str, str, str, int, int], Arm] = {}
        self._closed: dict[Name, Arm] = {}
        self._tallies: dict[str, Tally] = {}
        self._loads: dict[tuple[str, str], ShadowLoad] = {}
        self._names: dict[str, set[str]] = {}
        self._scales: dict[tuple[str, int], Scales] = {}

    def arm(self, model: str, version: str, name: str, stage: int, weight: int = 0) -> Arm:
        """`weight`: of 10,000; 0 when it is not drawn."""
        key = (model, version, name, stage, weight)
        arm = self._arms.get(key)
        if arm is None:
            arm = self._arms[key] = Arm(*key)
        return arm

    def tally(self, model: str) -> Tally:
        return self._tallies.setdefault(model, Tally(model))

    def load(self, model: str, version: str) -> ShadowLoad:
        """In flight of this shadow."""
        return self._loads.setdefault((model, version), ShadowLoad())

    def scales(
        self, model: str, generation: int, versions: tuple[str, str], shares: tuple[int, int], is_sticky: bool
    ) -> Scales:
        """Of that generation of the model's route: stable and the candidate, "" and 0 where there is none."""
        found = self._scales.get((model, generation))
        if found is None or (found.versions, found.shares, found.is_sticky) != (versions, shares, is_sticky):
            found = self._scales[model, generation] = Scales(model, generation, versions, shares, is_sticky)
        return found

    def retire(self) -> None:
        """After a swap: let go of the arms that neither a table nor a request holds."""
        n_own = 0
        # First an arm that nobody has, to see how many references this loop holds itself: that is Python's affair.
        for key, arm in [(None, Arm("", "", "")), *self._arms.items()]:
            n = sys.getrefcount(arm)
            if key is None:
                n_own = n + 1  # the book's
            elif n <= n_own:
                self._close(self._arms.pop(key))

    def _close(self, arm: Arm) -> None:
        _total(self._closed, (arm.model, arm.version, arm.name)).absorb(arm)

    # --- questions

    def arms(self) -> list[Arm]:
        """Those that requests may still count on, each of one stage."""
        return [*self._arms.values()]

    def tallies(self) -> list[Tally]:
        return [*self._tallies.values()]

    def weighed(self) -> list[Scales]:
        """Of all generations that are not forgotten."""
        return [*self._scales.values()]

    def forget(self, scales: Scales) -> None:
        """Its counters are told, and nothing is open."""
        if self._scales.get((scales.model, scales.generation)) is scales:
            del self._scales[scales.model, scales.generation]

    def totals(self) -> list[Arm]:
        """Sums since start over all stages, one for each model, version and name."""
        totals: dict[Name, Arm] = {}
        for arm in (*self._closed.values(), *self._arms.values()):
            _total(totals, (arm.model, arm.version, self._shown(arm))).absorb(arm)
        return [*totals.values()]

    def _shown(self, arm: Arm) -> str:
        """Its name, or OTHER for good: a series that changed its name would go backwards."""
        names = self._names.setdefault(arm.model, set())
        if len(names) < MAX_NAMES:
            names.add(arm.name)
        return arm.name if arm.name in names else OTHER


def _total(totals: dict[Name, Arm], name: Name) -> Arm:
    return totals.setdefault(name, Arm(*name, _ALL_STAGES))
