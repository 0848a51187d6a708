"""From routes to the native table that the data plane reads. Pure but for the arm book, which hands out what outlives
tables: the same routes over the same lanes give an equal table.

A route that names a version which does not serve is compiled all the same: what is drawn for it goes to the fallback,
or is refused with the reason. A model without a route has its highest ready version, as Triton would.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.native.arm import Arm
from gateway.native.lane import Lane
from gateway.native.plan import Plan
from gateway.native.route import ON, ShadowSpec, Target
from gateway.native.route import Route as NativeRoute
from gateway.native.routetable import RouteTable
from gateway.routing.armbook import ArmBook
from gateway.routing.route import FALLBACK, PINNED, SHADOW, SHARE_UNIT, Route, Share

Versions = Mapping[str, Lane | str]
"""By number: what serves, or why it does not."""

STABLE, CANDIDATE = "stable", "candidate"
NO_VERSION = "it has no version"


@dataclass(frozen=True, slots=True)
class CompiledModel:
    """One model's part of a table, and what it was made of: equal parts are used again by the next table."""

    versions: dict[str, Lane | str]
    route: Route | None
    generation: int
    entries: dict[str, Lane | str | Target | Plan]
    default: str | None
    """The version that its route names first."""
    unserved: dict[str, str]
    """Versions that its route names and that do not serve, with the reason."""


Compiled = Mapping[str, CompiledModel]


def compile_models(
    models: Mapping[str, Versions],
    routes: Mapping[str, Route],
    generations: Mapping[str, int],
    arms: ArmBook,
    before: Compiled,
) -> dict[str, CompiledModel]:
    """Every model in `models`; of those `before`, what has not changed is taken over as it is."""
    compiled = {}
    for model, versions in models.items():
        route, generation = routes.get(model), generations.get(model, 0)
        kept = before.get(model)
        if not (kept and kept.generation == generation and kept.route == route and kept.versions == versions):
            kept = _compile_model(model, dict(versions), route, generation, arms)
        compiled[model] = kept
    return compiled


def table_of(compiled: Compiled) -> RouteTable:
    return RouteTable({model: part.entries for model, part in compiled.items()})


def compile_routes(
    models: Mapping[str, Versions], routes: Mapping[str, Route], generations: Mapping[str, int], arms: ArmBook
) -> RouteTable:
    """A route for a model that is not in `models` leads nowhere, and neither does its model."""
    return table_of(compile_models(models, routes, generations, arms, {}))


def _compile_model(
    model: str, versions: dict[str, Lane | str], route: Route | None, generation: int, arms: ArmBook
) -> CompiledModel:
    if route is None:
        return CompiledModel(versions, None, generation, _unrouted(model, versions, arms), None, {})
    entries = _Compiler(model, versions, route, generation, arms).entries()
    found = {version: _serves(versions, version) for version in sorted(route.versions_used(), key=_number)}
    unserved = {version: serves for version, serves in found.items() if isinstance(serves, str)}
    return CompiledModel(versions, route, generation, entries, route.default_version(), unserved)


def highest_ready(versions: Versions) -> str | None:
    ready = [version for version, serves in versions.items() if isinstance(serves, Lane)]
    return max(ready, key=_number, default=None)


def _number(version: str) -> tuple[int, str]:
    return (int(version) if version.isdigit() else -1, version)


def _serves(versions: Versions, version: str) -> Lane | str:
    known = ", ".join(sorted(versions, key=_number)) or "none"
    return versions.get(version, f"no such version here; versions here: {known}")


def _unrouted(model: str, versions: Versions, arms: ArmBook) -> dict[str, Lane | str | Target | Plan]:
    entries = {version: _pinned(model, version, versions[version], 0, arms) for version in versions}
    highest = highest_ready(versions)
    if highest is not None:
        entries[""] = Target(highest, versions[highest], arms.arm(model, highest, STABLE, 0, SHARE_UNIT))
    else:
        reasons = [f"version {version} is {versions[version]}" for version in sorted(versions, key=_number)]
        entries[""] = Target("", "; ".join(reasons) or NO_VERSION)
    return {**entries}


def _pinned(model: str, version: str, serves: Lane | str, generation: int, arms: ArmBook) -> Target:
    """No route: a caller who names a version gets that one, and no other in its place."""
    return Target(version, serves, arms.arm(model, version, PINNED, generation))


class _Compiler:
    """One route of one model."""

    def __init__(self, model: str, versions: Versions, route: Route, generation: int, arms: ArmBook) -> None:
        self._model, self._versions, self._route = model, versions, route
        self._generation, self._arms = generation, arms
        self._salt = (route.sticky.salt if route.sticky and route.sticky.salt else model).encode()
        self._routes: dict[str, NativeRoute] = {}

    def entries(self) -> dict[str, Lane | str | Target | Plan]:
        plan = self._plan()
        if self._route.pinned == "forbid":
            return {"": plan, **dict.fromkeys(self._versions, plan)}
        pinned = {
            version: _pinned(self._model, version, serves, self._generation, self._arms)
            for version, serves in self._versions.items()
        }
        return {"": plan, **pinned}

    def _plan(self) -> Plan:
        default, *splits = [self._split(shares) for _, _, shares in self._route.splits()]
        self._weigh(default)
        rules = []
        for rule, split in zip(self._route.rules, splits, strict=True):
            match = rule.match
            values = [value.encode() for value in match.values]
            rules.append((*match.source, match.prefix is not None, values, split))
        sticky = self._route.sticky.source if self._route.sticky else None
        return Plan(self._arms.tally(self._model), self._generation, default, rules, sticky, self._salt)

    def _split(self, shares: tuple[Share, ...]) -> list[tuple[Target, int]]:
        split = []
        for share in shares:
            arm = self._arms.arm(self._model, share.version, share.arm or STABLE, self._generation, share.units)
            split.append((self._target(share.version, arm), share.units))
        return split

    def _weigh(self, split: list[tuple[Target, int]]) -> None:
        """Have the two arms of a rollout compared. A rule's arms are not: it draws none, or from other requests."""
        arms = {target.arm.name: (target.arm, units) for target, units in split if target.arm}
        if CANDIDATE not in arms:
            return
        sides = [arms.get(name) for name in (STABLE, CANDIDATE)]
        versions, shares = zip(*((side[0].version, side[1]) if side else ("", 0) for side in sides), strict=True)
        scales = self._arms.scales(
            self._model, self._generation, versions, shares, self._route.sticky is not None and len(split) > 1
        )
        for number, side in enumerate(sides):
            if side:
                side[0].scales, side[0].side = scales, number

    def _target(self, version: str, arm: Arm) -> Target:
        return Target(version, _serves(self._versions, version), arm, self._seen_from(version))

    def _seen_from(self, version: str) -> NativeRoute:
        """What holds for a request that was drawn for `version`: it is no shadow of itself, and no rescue of itself."""
        found = self._routes.get(version)
        if found is None:
            found = self._routes[version] = self._native_route(version)
        return found

    def _native_route(self, version: str) -> NativeRoute:
        route, fallback = self._route, self._route.fallback
        shadows = [self._shadow(index) for index, shadow in enumerate(route.shadows) if shadow.version != version]
        rescue, on = None, 0
        if fallback and fallback.version != version:
            arm = self._arms.arm(self._model, fallback.version, FALLBACK, self._generation)
            rescue = Target(fallback.version, _serves(self._versions, fallback.version), arm)
            on = sum(ON[condition] for condition in fallback.on)
        circuit = route.circuit_in_force()
        return NativeRoute(
            self._model,
            self._generation,
            shadows=shadows,
            fallback=rescue,
            fallback_on=on,
            circuit_failures=circuit.failures if circuit else 0,
            circuit_open_us=circuit.open_for_us if circuit else 0,
            circuit_probes=circuit.probes if circuit else 1,
        )

    def _shadow(self, index: int) -> ShadowSpec:
        shadow = self._route.shadows[index]
        version = shadow.version
        return ShadowSpec(
            version,
            _serves(self._versions, version),
            self._arms.arm(self._model, version, SHADOW, self._generation),
            shadow.units,
            self._salt,
            self._arms.load(self._model, version),
            shadow.max_rows,
            shadow.max_bytes,
            shadow.max_concurrency,
        )
