"""A change of a route: checked, loaded, committed, and answered when every live worker has it in force.

Two operators at once: the second is told what the first did. A version that is not loaded is loaded and warmed first,
so that no request waits for it; where that fails, nothing has changed.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from gateway.control import fleet
from gateway.control.answers import Difference, RouteApplied, Silent
from gateway.control.diff import diff
from gateway.control.plane import Plane, until
from gateway.control.problems import Problem
from gateway.control.versionchange import VersionChanges
from gateway.errors import NotFound
from gateway.registry.repository import find
from gateway.routing.route import Route, RouteError, parse, validate_against

if TYPE_CHECKING:
    from gateway.store import RouteRecord

ACK_TIMEOUT_S = 2.0
"""A worker that has not got there by then takes itself out of ready, or is about to."""


class RouteChanges:
    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    def put(
        self,
        model: str,
        document: Any,
        expected: int | None,
        actor: str,
        reason: str,
        *,
        is_dry: bool = False,
        supersede: bool = False,
    ) -> RouteApplied:
        """Problem: 404, 409, 422. `is_dry`: only say what it would do. `supersede`: also under a live rollout."""
        current = self._plane.store.routes().get(model)
        self._refuse_when_stale(model, current, expected, document)
        route = self.checked(model, document)
        written = route.document()
        changes = self._changes(current, written)
        unloaded = self._not_loaded(model, route)
        if is_dry:
            generation = (current.generation if current else 0) + 1
            return RouteApplied(
                model=model, generation=generation, route=written, diff=changes, is_dry_run=True, loads=unloaded
            )
        why = f"routed: {reason}" if reason else "routed"
        VersionChanges(self._plane).load(model, sorted(route.versions_used()), actor, why, "versions")
        return self._commit(model, written, expected, actor, reason, unloaded, supersede=supersede)

    def checked(self, model: str, document: Any) -> Route:
        """Problem 404 or 422."""
        try:
            route = parse(document)
        except RouteError as error:
            raise self._refusal(model, error.faults) from None
        known = self._known(model)
        if not known:
            here = ", ".join(dict.fromkeys(each.model for each in self._plane.store.versions())) or "none"
            text = f"model {model!r}: nobody serves it, and none of its versions is registered; models here: {here}"
            raise Problem(404, text)
        if faults := validate_against(route, known):
            raise self._refusal(model, faults)
        return route

    def _commit(
        self,
        model: str,
        document: dict[str, Any],
        expected: int | None,
        actor: str,
        reason: str,
        loads: list[str],
        *,
        supersede: bool,
    ) -> RouteApplied:
        from gateway.store import Conflict

        store = self._plane.store
        with self._plane.commit:
            current = store.routes().get(model)
            if faults := validate_against(parse(document), self._known(model)):  # retired meanwhile
                raise self._refusal(model, faults)
            try:
                record = store.put_route(model, document, expected, actor, reason, supersede=supersede)
            except Conflict as error:
                raise self._stale(model, error.current, document) from None
        began_s = time.monotonic()
        missing = until(began_s + ACK_TIMEOUT_S, lambda: self._behind(model, record.generation))
        took_s = time.monotonic() - began_s
        late = {each.worker for each in missing}
        done = [name for each in self._plane.live() if (name := fleet.name(each)) not in late]
        return RouteApplied(
            model=model,
            generation=record.generation,
            route=document,
            diff=self._changes(current, document),
            loads=loads,
            acknowledged=done,
            missing=[Silent(worker=each.worker, reason=each.reason) for each in missing],
            live_after_s=None if missing else round(took_s, 4),
        )

    def _behind(self, model: str, generation: int) -> list[fleet.Silent]:
        return fleet.behind(self._plane.live(), self._plane.expected, model, generation)

    def _known(self, model: str) -> dict[str, str]:
        """Version -> state, of all that are registered, served, or lie in the repository."""
        known = {version: "served" for _, version in fleet.reported(self._plane.live(), model)}
        with contextlib.suppress(NotFound):
            known |= {str(each.number): "in the repository" for each in find(self._plane.models, model).versions}
        for record in self._plane.store.versions(model):
            known[record.version] = "retired" if record.is_retired else "registered"
        return known

    def _not_loaded(self, model: str, route: Route) -> list[str]:
        live = self._plane.live()
        return sorted(
            version for version in route.versions_used() if any(fleet.unready(live, model, version)) or not live
        )

    def _changes(self, current: RouteRecord | None, document: dict[str, Any]) -> list[Difference]:
        return [Difference(**each) for each in diff(current.document if current else {}, document)]

    def _refuse_when_stale(self, model: str, current: RouteRecord | None, expected: int | None, document: Any) -> None:
        if expected is not None and expected != (current.generation if current else 0):
            raise self._stale(model, current, document)

    def _stale(self, model: str, current: RouteRecord | None, document: Any) -> Problem:
        if current is None:
            return Problem(409, f"model {model!r} has no route; expected_generation of a first one is 0", generation=0)
        text = (
            f"route of model {model!r}: generation {current.generation} is in force, by {current.actor}"
            f"{f' ({current.reason})' if current.reason else ''}; look at the difference and try again from there"
        )
        changes = diff(current.document, document if isinstance(document, dict) else {})
        return Problem(409, text, generation=current.generation, route=current.document, diff=changes)

    def _refusal(self, model: str, faults: list[tuple[str, str]]) -> Problem:
        text = "; ".join(f"{field}: {message}" for field, message in faults)
        return Problem(422, f"route of model {model!r}: {text}", faults)
