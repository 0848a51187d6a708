"""What the audit log says that the tables hold: who writes a route past the gateway leaves the log true, and is found
here.
"""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from gateway.store import schema
from gateway.store.chain import Row, canonical
from gateway.store.part import parsed

_VERSIONS = schema.versions.c


class Ledger:
    """Takes the entries, then compares."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, int], tuple[int, str]] = {}
        """(model, generation) -> entry, content."""
        self._digests: dict[str, tuple[int, str]] = {}
        """model/version -> entry, digest."""

    def add(self, row: Row) -> None:
        after = parsed(row.after)
        if not isinstance(after, dict):
            return  # a forged entry, in a chain that will turn out not to hold
        if row.action == "route.put":
            content = canonical([after.get("route"), after.get("automatic"), row.actor, row.reason])
            self._routes[row.subject, after.get("generation", 0)] = (row.seq, content)
        elif row.action == "version.register":
            self._digests[row.subject] = (row.seq, after.get("digest", ""))

    def fault(self, connection: sa.Connection) -> str | None:
        """The first difference, or None."""
        return self._fault_of_routes(connection) or self._fault_of_versions(connection)

    def _fault_of_routes(self, connection: sa.Connection) -> str | None:
        for row in connection.execute(sa.select(schema.routes)):
            name = f"route of {row.model!r}, generation {row.generation}"
            seq, content = self._routes.pop((row.model, row.generation), (0, ""))
            if not seq:
                return f"{name}: is in the store, but in no entry"
            if canonical([row.document, bool(row.automatic), row.actor, row.reason]) != content:
                return f"{name}: is not what entry {seq} says"
        return _missing(f"route of {model!r}, generation {n}" for model, n in self._routes)

    def _fault_of_versions(self, connection: sa.Connection) -> str | None:
        for row in connection.execute(sa.select(_VERSIONS.model, _VERSIONS.version, _VERSIONS.digest)):
            name = f"{row.model}/{row.version}"
            seq, digest = self._digests.pop(name, (0, ""))
            if not seq:
                return f"version {name}: is in the store, but in no entry"
            if row.digest != digest:
                return f"version {name}: its digest is not what entry {seq} says"
        return _missing(f"version {name}" for name in self._digests)


def _missing(names: Iterable[str]) -> str | None:
    first = next(iter(names), None)
    return f"{first}: has an entry, but is not in the store" if first else None
