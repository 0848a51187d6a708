"""Versions come and go: registered and loaded in every worker, or retired and unloaded. What an operator asks is done
or refused as a whole.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from gateway.control import fleet
from gateway.control.answers import Silent, VersionAdded, VersionRetired
from gateway.control.plane import Plane, until
from gateway.control.problems import Problem
from gateway.control.registration import record_of
from gateway.errors import NotFound
from gateway.registry.repository import find
from gateway.routing.route import RouteError, parse

LOAD_TIMEOUT_S = 300.0
"""For a version to be loaded and warm in every worker; some have gigabytes to read."""
UNLOAD_TIMEOUT_S = 35.0
"""Longer than a request may take by default."""


class VersionChanges:
    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    def add(self, model: str, version: str | None, actor: str, reason: str) -> list[VersionAdded]:
        """Register what lies in the repository and have all workers load it: one version, or all that are new."""
        store = self._plane.store
        known = {record.version for record in store.versions(model)}
        known |= {version for _, version in fleet.reported(self._plane.live(), model)}
        if version is None:
            lying = [str(each.number) for each in find(self._plane.models, model).versions]
            versions = [each for each in lying if each not in known]
            if not versions:
                shown = ", ".join(lying) or "none"
                raise Problem(409, f"model {model!r}: no new version in the repository; there, and known: {shown}")
        else:
            versions = [version]
        records = [record_of(self._plane.models, model, each) for each in versions]
        with self._plane.commit:
            for record in records:
                store.register_version(record, actor, reason)
                store.unretire(model, record.version, actor, reason)
        self.load(model, versions, actor, reason)
        live = self._plane.live()
        return [
            VersionAdded(
                model=model, version=record.version, digest=record.digest, workers=[fleet.name(each) for each in live]
            )
            for record in records
        ]

    def load(self, model: str, versions: Iterable[str], actor: str, reason: str, field: str = "version") -> None:
        """Returns when each is READY in every live worker; one that is being started loads what is wanted by itself. A
        Problem names the workers that did not get there; what was asked of them is taken back then.
        """
        store = self._plane.store
        versions = list(versions)
        wanted = {v for m, v in store.wanted() if m == model}
        asked = [version for version in versions if version not in wanted]
        again = [version for version in versions if version in wanted and any(self._unready(model, version))]
        for version in again:  # asked for before, and it failed, or a client has unloaded it since
            store.unwant(model, version, actor, f"to be loaded again: {reason}")
        if again:
            self._until_seen(store.revision())
        for version in [*asked, *again]:
            self._register_unless_known(model, version, actor)
            store.want(model, version, actor, reason)
        if not any(any(self._unready(model, version)) for version in versions):
            return
        if asked or again:
            self._until_seen(store.revision())
        deadline_s = time.monotonic() + LOAD_TIMEOUT_S
        faults = []
        for version in versions:

            def pending(version: str = version) -> list[fleet.Silent]:
                return self._unready(model, version)[1]

            until(deadline_s, pending)
            failed, late = self._unready(model, version)
            faults += [
                (field if field == "version" else f"{field}.{version}", f"worker {each.worker}: {each.reason}")
                for each in failed + late
            ]
        if faults:
            for version in [*asked, *again]:
                store.unwant(model, version, actor, "it could not be loaded everywhere")
            text = "; ".join(message for _, message in faults)
            listed = ", ".join(versions)
            raise Problem(409, f"model {model!r} version {listed}: is not loaded, nothing was changed; {text}", faults)

    def retire(self, model: str, version: str, actor: str, reason: str) -> VersionRetired:
        """Unload it everywhere, for good. Refused while a route names it."""
        store = self._plane.store
        with self._plane.commit:
            record = store.routes().get(model)
            if record and version in _named(record.document):
                raise Problem(
                    409,
                    f"model {model!r} version {version}: the route of generation {record.generation} names it; "
                    "take it out of the route first",
                )
            for rollout in store.rollouts(model, live=True):
                if version == rollout.candidate or (version == rollout.stable and rollout.stage != "promoted"):
                    raise Problem(
                        409,
                        f"model {model!r} version {version}: rollout {rollout.id} is live ({rollout.stage}) and needs"
                        " it; abort that first",
                    )
            self._register_unless_known(model, version, actor)
            store.retire_version(model, version, actor, reason)
        self._until_seen(store.revision())

        def holders() -> list[Silent]:
            return [
                Silent(worker=fleet.name(record), reason=f"it is {word}")
                for record in self._plane.live()
                if (word := fleet.state(record, model, version)[0]) not in ("", "UNAVAILABLE")
            ]

        missing = until(time.monotonic() + UNLOAD_TIMEOUT_S, holders)
        late = {each.worker for each in missing}
        done = [name for record in self._plane.live() if (name := fleet.name(record)) not in late]
        return VersionRetired(model=model, version=version, unloaded=done, missing=missing)

    def _unready(self, model: str, version: str) -> tuple[list[fleet.Silent], list[fleet.Silent]]:
        return fleet.unready(self._plane.live(), model, version)

    def _until_seen(self, revision: int) -> None:
        """Workers have read that revision; one that does not is named by who waits for its effect."""
        until(time.monotonic() + fleet.LIVE_S, lambda: [r for r in self._plane.live() if r.revision < revision])

    def _register_unless_known(self, model: str, version: str, actor: str) -> None:
        store = self._plane.store
        if any(record.version == version for record in store.versions(model)):
            return
        try:
            store.register_version(record_of(self._plane.models, model, version), actor, "found in the repository")
        except NotFound as error:
            here = ", ".join(record.version for record in store.versions(model)) or "none"
            raise Problem(404, f"{error}; versions registered: {here}") from None


def _named(document: dict[str, object]) -> set[str]:
    try:
        return parse(document).versions_used()
    except RouteError:
        return set()
