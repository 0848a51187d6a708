"""Which routes are in force in this worker, over what the loader has in service: one native table, swapped as a whole.

The loader says what serves, the agent what the routes are; either makes a new table, between two requests. A route that
cannot be obeyed in full is in force all the same: what in it does not serve is said to whoever applied it, and to the
callers that are drawn for it. Affinity: owning loop only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from gateway.native.lane import Lane
from gateway.native.routetable import RouteTable
from gateway.observability import logs
from gateway.routing.armbook import ArmBook
from gateway.routing.compile import (
    CANDIDATE,
    STABLE,
    CompiledModel,
    Versions,
    compile_models,
    highest_ready,
    table_of,
)
from gateway.routing.route import Route, Share, shares_of
from gateway.serving.circuits import set_circuit

NO_MODEL = "no such model here"


@dataclass(frozen=True, slots=True)
class RouteInForce:
    route: Route
    generation: int = 0
    automatic: bool = False
    """Made by the gateway for a model that nobody has routed: a repository load moves it to the highest version."""


class Routing:
    """One per worker; `swap` puts a table in force. `defaults` by model is the version that speaks for it."""

    def __init__(self, swap: Callable[[RouteTable], None], defaults: dict[str, str] | None = None) -> None:
        self._swap = swap
        self._defaults: dict[str, str] = {} if defaults is None else defaults
        self._models: Mapping[str, Versions] = {}
        self._routes: dict[str, RouteInForce] = {}
        self._repinned: dict[str, RouteInForce] = {}
        self._lowered: dict[str, tuple[int, str]] = {}
        self._compiled: dict[str, CompiledModel] = {}
        self.arms = ArmBook()
        self.revision = 0
        """Of the store, as it was applied last; 0: never."""
        self.n_swaps = 0
        self.on_swap: Callable[[], None] | None = None
        """Told of each."""
        self._log = logs.get()

    # --- changes

    def publish(self, models: Mapping[str, Versions]) -> None:
        """From the loader: what serves now, or why it does not, by model and version."""
        self._models = models
        self._compile()

    def apply(self, routes: Mapping[str, RouteInForce], revision: int) -> dict[str, str]:
        """All routes there are, in place of those before, in one swap; by model, why something in its route does not
        serve.
        """
        for model, given in routes.items():
            if (before := self._routes.get(model)) != given:
                generation = before.generation if before else None
                self._log.info("route applied", model=model, generation=given.generation, before=generation)
        for model in self._routes.keys() - routes.keys():
            self._log.info("route removed", model=model, before=self._routes[model].generation)
        self._routes = dict(routes)
        for model, pinned in [*self._repinned.items()]:
            now = self._routes.get(model)
            if now is None or not now.automatic or now.generation != pinned.generation:
                del self._repinned[model]
        self._lowered = {
            model: lowered
            for model, lowered in self._lowered.items()
            if model in self._routes and self._routes[model].generation == lowered[0]
        }
        self.revision = revision
        self._compile()
        return self.faults()

    def lower(self, model: str, reason: str) -> bool:
        """Take all weight from the candidate of the model's route, in this worker, until a newer generation comes:
        whoever decides will have heard of it by then. False: there is none, or no stable version that can take it.
        """
        given = self._routes.get(model)
        if given is None or model in self._lowered or model in self._repinned:
            return False
        stable = next((s.version for s in shares_of(given.route.versions) if s.arm == STABLE), None)
        if _without_candidate(given.route) is None or not isinstance(
            self._models.get(model, {}).get(stable or ""), Lane
        ):
            return False
        self._lowered[model] = given.generation, reason
        self._log.warning("weight taken from the candidate", model=model, generation=given.generation, reason=reason)
        self._compile()
        return True

    def repin(self, model: str) -> None:
        """A repository load of `model` is done: where nobody has routed it, its highest ready version answers, as
        Triton's users expect. It holds until a newer generation comes.
        """
        given = self._routes.get(model)
        highest = highest_ready(self._models.get(model, {}))
        if given is None or not given.automatic or highest is None or given.route == Route.only(highest):
            self._repinned.pop(model, None)
        else:
            self._repinned[model] = RouteInForce(Route.only(highest), given.generation, True)
            self._log.info("automatic route moved", model=model, version=highest, generation=given.generation)
        self._compile()

    def _compile(self) -> None:
        in_force = self.routes
        routes = {model: given.route for model, given in in_force.items()}
        generations = {model: given.generation for model, given in in_force.items()}
        self._compiled = compile_models(self._models, routes, generations, self.arms, self._compiled)
        self._defaults.clear()
        self._defaults.update({model: part.default for model, part in self._compiled.items() if part.default})
        for model, versions in self._models.items():
            given = in_force.get(model)
            for serves in versions.values():
                if isinstance(serves, Lane):
                    set_circuit(serves, given.route.circuit_in_force() if given else None)
        self._swap(table_of(self._compiled))
        self.n_swaps += 1
        self.arms.retire()
        if self.on_swap:
            self.on_swap()

    # --- questions

    @property
    def routes(self) -> dict[str, RouteInForce]:
        """In force, by model."""
        lowered = {}
        for model in self._lowered:
            if route := _without_candidate(self._routes[model].route):
                lowered[model] = replace(self._routes[model], route=route)
        return {**self._routes, **lowered, **self._repinned}

    @property
    def lowered(self) -> dict[str, tuple[int, str]]:
        """By model, of which generation the candidate has lost its weight here, and why."""
        return dict(self._lowered)

    @property
    def generations(self) -> dict[str, int]:
        return {model: given.generation for model, given in self._routes.items()}

    @property
    def repinned(self) -> dict[str, str]:
        """By model, the version that a repository load has put in place of an automatic route's."""
        return {model: given.route.default_version() for model, given in self._repinned.items()}

    def faults(self) -> dict[str, str]:
        """By model, why something in its route does not serve."""
        found = {}
        for model in self.routes:
            part = self._compiled.get(model)
            if part is None:
                found[model] = NO_MODEL
            elif part.unserved:
                found[model] = "; ".join(f"version {version}: {reason}" for version, reason in part.unserved.items())
        return found


def _without_candidate(route: Route) -> Route | None:
    """With the candidate's weight given to stable; None when its split has not both, or is not a rollout's."""
    if not route.is_on_trial:
        return None
    shares = shares_of(route.versions)
    weights = {share.arm: share.weight for share in shares}
    if STABLE not in weights or CANDIDATE not in weights:
        return None
    kept = tuple(
        Share(version=s.version, weight=s.weight + (weights[CANDIDATE] if s.arm == STABLE else 0), arm=s.arm)
        for s in shares
        if s.arm != CANDIDATE
    )
    return route.model_copy(update={"versions": kept})
