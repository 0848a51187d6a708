"""The routes that nobody has to write: a model's first one, and the one after a repository load. Pure decisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.control.fleet import READY

if TYPE_CHECKING:
    from gateway.store import RouteRecord, WorkerRecord

ACTOR = "gateway"
UNSETTLED = ("LOADING", "UNLOADING")


@dataclass(frozen=True, slots=True)
class Wish:
    """A route to be written, unless another came first."""

    model: str
    version: str
    expected_generation: int
    reason: str

    @property
    def document(self) -> dict[str, Any]:
        return {"versions": {self.version: 100}}


def decide(live: Sequence[WorkerRecord], routes: Mapping[str, RouteRecord]) -> list[Wish]:
    """`live`: all workers that should be here. A model gets its first route when its versions have settled in all of
    them: everything to the highest that serves everywhere, or somewhere when none does.
    """
    wishes = []
    for model in sorted({model for record in live for model in record.versions}):
        states = [record.versions.get(model, {}) for record in live]
        if any(each["state"] in UNSETTLED for versions in states for each in versions.values()):
            continue
        route = routes.get(model)
        if route is None:
            ready = [{v for v, each in versions.items() if each["state"] == READY} for versions in states]
            choice = highest(set.intersection(*ready)) or highest(set.union(*ready))
            if choice:
                wishes.append(Wish(model, choice, 0, "first route: the highest version that serves"))
        elif route.automatic:
            moved = highest({v for versions in states for v, each in versions.items() if each.get("is_repinned")})
            if moved and route.document != {"versions": {moved: 100}}:
                wishes.append(Wish(model, moved, route.generation, "a client loaded the model from the repository"))
    return wishes


def highest(versions: Iterable[str]) -> str | None:
    return max(versions, key=lambda version: (int(version) if version.isdigit() else 0, version), default=None)
