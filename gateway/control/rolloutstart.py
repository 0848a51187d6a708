"""The beginning of a rollout: a plan checked against what is served, and what it would do, said before it does it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.control import evidence, fleet, rolloutroute
from gateway.control.plane import Plane, until
from gateway.control.problems import Problem
from gateway.control.registration import record_of
from gateway.errors import GatewayError, NotFound
from gateway.observability import logs
from gateway.rollout import forecast
from gateway.rollout.baseline import Baseline
from gateway.rollout.decide import begin
from gateway.rollout.plan import Plan, PlanError, parse
from gateway.routing.route import parse as parse_route

if TYPE_CHECKING:
    from gateway.store import RouteRecord, VersionRecord
    from gateway.store.rolloutrecords import RolloutRecord


@dataclass(frozen=True, slots=True)
class Checked:
    """A plan that may start."""

    plan: Plan
    stable: VersionRecord
    candidate: VersionRecord
    route: RouteRecord
    blocked: str  # why its files may not be tried, without somebody's word
    live: str  # the rollout of the model that is under way


class RolloutStarts:
    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    def check(self, document: Any) -> Checked:
        """Problem: 404, 409, 422. Under a live rollout the route is looked at as it was before that."""
        plan = self._parsed(document)
        store = self._plane.store
        route = store.routes().get(plan.model)
        if route is None:
            here = ", ".join(store.routes()) or "none yet"
            raise Problem(404, f"model {plan.model!r} has no route, so there is nothing to replace; with one: {here}")
        live = next((each for each in store.rollouts(plan.model, live=True) if each.stage != "promoted"), None)
        before = live.base["route"] if live else route.document
        stable = plan.stable or rolloutroute.stable_of(parse_route(before))
        if stable is None:
            raise Problem(
                409,
                f"model {plan.model!r}: several versions answer by its route, expected one that the candidate is to"
                " replace; set the route to that one first",
            )
        plan = plan.model_copy(update={"stable": stable})
        if stable == plan.candidate:
            raise Problem(
                422,
                f"candidate: version {stable} answers already",
                [("candidate", f"version {stable} answers already, expected another")],
            )
        if plan.mode == "act":
            faults = rolloutroute.faults(parse_route(before), stable, plan.candidate)
            if faults:
                text = "; ".join(f"{field}: {what}" for field, what in faults)
                raise Problem(409, f"route of model {plan.model!r}: {text}", faults)
        records = [self._known(plan.model, version) for version in (stable, plan.candidate)]
        for record in records:
            if record.is_retired:
                raise Problem(409, f"model {plan.model!r} version {record.version}: is retired; add it again first")
        self._refuse_unless_stable_serves(plan.model, stable)
        blocked = next((each for each in store.blocked(plan.model) if each.digest == records[1].digest), None)
        return Checked(
            plan,
            records[0],
            records[1],
            route,
            f"taken back by rollout {blocked.rollout}: {blocked.reason}" if blocked else "",
            live.id if live else "",
        )

    def describe(self, checked: Checked) -> str:
        """What it will do, and about how long that takes at the traffic there is."""
        lines = [forecast.describe(checked.plan, self._baseline(checked))]
        if checked.blocked:
            lines.append(f"would be refused without an override: these files were {checked.blocked}")
        if checked.live:
            lines.append(f"would be refused unless it supersedes {checked.live}, which is live")
        return "\n".join(lines)

    def start(
        self, document: Any, actor: str, reason: str, *, override: bool = False, supersede: bool = False
    ) -> RolloutRecord:
        """Problem; or RolloutConflict, of the store."""
        from gateway.store.rolloutrecords import NewRollout

        if override and not reason.strip():
            raise Problem(
                422,
                "reason: is empty; expected why files that were taken back are tried again",
                [("reason", "is empty; expected why files that were taken back are tried again")],
            )
        checked = self.check(document)
        plan, store = checked.plan, self._plane.store
        loads: tuple[str, ...] = ()
        if plan.mode == "act" and any(self._unready(plan.model, plan.candidate)):
            loads = (plan.candidate,)
            self._forget_old_failure(plan.model, plan.candidate, actor)
        cursor = begin(plan, time.time())
        return store.start_rollout(
            NewRollout(
                model=plan.model,
                stable=checked.stable.version,
                stable_digest=checked.stable.digest,
                candidate=checked.candidate.version,
                candidate_digest=checked.candidate.digest,
                plan=plan.document(),
                cursor=cursor.as_dict(),
                base={"generation": checked.route.generation, "route": checked.route.document},
                loads=loads,
                override=override,
                supersede=supersede,
            ),
            actor,
            reason,
        )

    def _parsed(self, document: Any) -> Plan:
        try:
            return parse(document)
        except PlanError as error:
            text = "; ".join(f"{field}: {what}" if field else what for field, what in error.faults)
            raise Problem(422, f"plan: {text}", error.faults) from None

    def _known(self, model: str, version: str) -> VersionRecord:
        store = self._plane.store
        found = next((each for each in store.versions(model) if each.version == version), None)
        if found is not None:
            return found
        try:
            return store.register_version(
                record_of(self._plane.models, model, version), "gateway", "found in the repository"
            )
        except NotFound as error:
            here = ", ".join(record.version for record in store.versions(model)) or "none"
            raise Problem(404, f"{error}; versions registered: {here}") from None

    def _refuse_unless_stable_serves(self, model: str, stable: str) -> None:
        failed, pending = self._unready(model, stable)
        if not self._plane.live():
            raise Problem(409, "no worker is there: nobody could be compared, and nobody would answer after a rollback")
        if late := failed + pending:
            said = "; ".join(f"worker {each.worker}: {each.reason}" for each in late)
            raise Problem(
                409,
                f"model {model!r} version {stable}: does not serve everywhere, so there would be no way back: {said}",
            )

    def _forget_old_failure(self, model: str, version: str, actor: str) -> None:
        """It was asked for before and failed, or somebody unloaded it: it is to be loaded again."""
        store = self._plane.store
        if (model, version) in store.wanted():
            store.unwant(model, version, actor, "to be loaded again for a rollout")
            revision = store.revision()
            until(
                time.monotonic() + fleet.LIVE_S,
                lambda: [record for record in self._plane.live() if record.revision < revision],
            )

    def _unready(self, model: str, version: str) -> tuple[list[fleet.Silent], list[fleet.Silent]]:
        return fleet.unready(self._plane.live(), model, version)

    def _baseline(self, checked: Checked) -> Baseline:
        plan = checked.plan
        try:
            return evidence.baseline(
                self._plane.store, self._plane.live(), plan.model, checked.stable.version, plan, time.time()
            )
        except GatewayError as error:
            logs.get().info("no baseline to forecast with", model=plan.model, error=str(error))
            return Baseline()
