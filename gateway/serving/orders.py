"""What the store says is to be served, and what that means for a worker that serves something else.

Pure: no store, no clock. A version is loaded when it becomes wanted, and unloaded when it is wanted no longer or is
retired; what nobody has asked for or against (a folder of the repository, a model that a client loaded) is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from gateway.serving.lastroutes import KeptRoute, LastRoutes

Key = tuple[str, str]
"""Model and version."""


@dataclass(frozen=True, slots=True)
class Orders:
    """The store at one revision."""

    revision: int
    routes: Mapping[str, KeptRoute]
    wanted: frozenset[Key] = frozenset()
    retired: frozenset[Key] = frozenset()


@dataclass(frozen=True, slots=True)
class Changes:
    """From what was known to what is to be."""

    load: frozenset[Key] = field(default_factory=frozenset)
    unload: frozenset[Key] = field(default_factory=frozenset)


def changes(orders: Orders, known: LastRoutes, ready: Set[Key]) -> Changes:
    """`known` is what this worker heard before, `ready` what it serves now."""
    wanted = orders.wanted - orders.retired
    fresh = wanted - (known.wanted - known.unwanted)
    dropped = (known.wanted | known.unwanted) - wanted
    return Changes(frozenset(fresh - ready), frozenset((dropped | orders.retired) & ready))


def remembered(orders: Orders, known: LastRoutes) -> LastRoutes:
    """What to know from now on."""
    wanted = orders.wanted - orders.retired
    unwanted = (known.unwanted | known.wanted | orders.retired) - wanted
    return LastRoutes(revision=orders.revision, routes=dict(orders.routes), wanted=wanted, unwanted=unwanted)
