"""Which versions this worker knows, in which state, and whether that adds up to being live and ready.

The one place that changes a version's state; health, RepositoryIndex and the native route table read it.
Affinity: owning loop only. Loads run in threads; their results are moved in from the loop.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from gateway.backends.base import Signature
from gateway.errors import NotFound, Unavailable
from gateway.serving.wording import listed, quoted


class State(enum.Enum):
    """Triton's words, as RepositoryIndex shows them.

    LOADING ──▶ READY ──▶ UNLOADING ──▶ UNAVAILABLE
       │        ◀──┘ (replaced by what was loaded anew)
       └──────────(failed)──────────────▶    │
       ◀──────────────(load again)───────────┘

    READY and UNAVAILABLE follow each other without a load where other servers run the version: see `hinder`.
    """

    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


_MOVES: dict[State, frozenset[State]] = {
    State.LOADING: frozenset({State.READY, State.UNAVAILABLE}),
    State.READY: frozenset({State.READY, State.UNLOADING, State.UNAVAILABLE}),
    State.UNLOADING: frozenset({State.UNAVAILABLE}),
    State.UNAVAILABLE: frozenset({State.LOADING, State.READY, State.UNLOADING}),
}


class IllegalMove(Exception):
    """A bug in the caller: this version cannot go there from where it is."""


@dataclass(slots=True, eq=False)
class ServedVersion:
    """One version as this worker holds it. Changed by `Catalog.move` only."""

    model: str
    version: str
    state: State = State.LOADING
    reason: str = ""
    """Why it is not ready, for a person; empty when READY."""
    signature: Signature | None = None
    """Known from READY on; kept while UNLOADING, because requests are still in flight."""
    platform: str = ""

    @property
    def is_ready(self) -> bool:
        return self.state is State.READY


class Catalog:
    """Versions by model and number, with the server's own readiness."""

    def __init__(self) -> None:
        self._models: dict[str, dict[int, ServedVersion]] = {}
        self._subscribers: dict[object, Callable[[], None]] = {}
        self._startup: set[ServedVersion] = set()  # added before `started`, not settled yet
        self._started = False
        self._draining = False
        self._held_back = ""
        self.defaults: dict[str, str] = {}
        """By model, the version that its route names first; the routing keeps it."""

    # --- changes

    def add(self, model: str, version: str) -> ServedVersion:
        """A new version, LOADING. ValueError: already there, or not a positive whole number in plain digits."""
        if not (version.isascii() and version.isdigit() and version[0] != "0"):
            raise ValueError(f"model {model!r}: version {version!r}, expected a positive whole number")
        versions = self._models.setdefault(model, {})
        if int(version) in versions:
            raise ValueError(f"model {model!r} version {version} is already in the catalog")
        entry = versions[int(version)] = ServedVersion(model, version)
        if not self._started:
            self._startup.add(entry)
        self._changed()
        return entry

    def move(
        self,
        entry: ServedVersion,
        state: State,
        reason: str = "",
        signature: Signature | None = None,
        platform: str = "",
    ) -> None:
        """Take `entry` to `state`. Signature and platform come with READY. IllegalMove names both states."""
        if state not in _MOVES[entry.state]:
            allowed = " or ".join(sorted(s.value for s in _MOVES[entry.state]))
            raise IllegalMove(
                f"model {entry.model!r} version {entry.version}: {entry.state.value} -> {state.value} "
                f"is no legal move; from {entry.state.value} only to {allowed}"
            )
        entry.state, entry.reason = state, reason
        if state is not State.UNLOADING:
            entry.signature, entry.platform = signature, platform
        if state is not State.LOADING:
            self._startup.discard(entry)
        self._changed()

    def hinder(self, entry: ServedVersion, reason: str) -> None:
        """A version that is held and cannot serve for now, because of `reason`; "": now it can."""
        if entry.state is State.UNAVAILABLE and reason:
            entry.reason = reason  # another one
            self._changed()
        elif entry.state in (State.READY, State.UNAVAILABLE):
            wish = State.UNAVAILABLE if reason else State.READY
            self.move(entry, wish, reason, entry.signature, entry.platform)

    @property
    def started(self) -> bool:
        """Set by the worker when the startup load is through."""
        return self._started

    @started.setter
    def started(self, value: bool) -> None:
        self._started = value
        self._changed()

    @property
    def draining(self) -> bool:
        """Set by the worker on SIGTERM: still serving what it has, not ready for more."""
        return self._draining

    @draining.setter
    def draining(self, value: bool) -> None:
        self._draining = value
        self._changed()

    @property
    def held_back(self) -> str:
        """Why this worker should get no traffic although it could serve; empty: nothing is wrong."""
        return self._held_back

    @held_back.setter
    def held_back(self, reason: str) -> None:
        if reason != self._held_back:
            self._held_back = reason
            self._changed()

    # --- questions

    @property
    def live(self) -> bool:
        """True as long as anybody is here to answer, also while draining: liveness asks whether to restart the
        process.
        """
        return True

    @property
    def ready(self) -> bool:
        """Started, not draining, not held back, every startup version settled, one version READY.

        A version that failed does not keep the server un-ready, and neither does one that is loaded later.
        """
        may = self._started and not self._draining and not self._startup and not self._held_back
        return may and any(map(self.has_ready, self._models))

    def models(self) -> list[str]:
        """Names, sorted."""
        return sorted(self._models)

    def versions(self, model: str) -> list[ServedVersion]:
        """Versions of a model by number; empty for an unknown model."""
        return [entry for _, entry in sorted(self._models.get(model, {}).items())]

    def has_ready(self, model: str) -> bool:
        return any(entry.is_ready for entry in self._models.get(model, {}).values())

    def resolve(self, model: str, version: str = "") -> ServedVersion:
        """The READY version of that number; without one, that of the model's route, or else the highest READY one.

        NotFound names the model or version and what exists; Unavailable gives the reasons of what is not ready.
        """
        versions = self.versions(model)
        if not versions:
            here = listed(map(quoted, self.models()))
            # Triton's own words: its examples, and callers written after them, look for these.
            raise NotFound(f"Request for unknown model: {quoted(model)} is not found; models here: {here}")
        if version:
            for entry in versions:
                if entry.version == version:
                    if entry.is_ready:
                        return entry
                    raise Unavailable(f"model {model!r} version {version} is {_state(entry)}")
            raise NotFound(
                f"model {model!r} has no version {quoted(version)}; its versions: "
                + listed(f"{entry.version} ({entry.state.value})" for entry in versions)
            )
        default = self.defaults.get(model)
        ready = [entry for entry in versions if entry.is_ready]
        if ready:
            return next((entry for entry in ready if entry.version == default), ready[-1])
        raise Unavailable(
            f"model {model!r} has no version ready: "
            + listed((f"version {entry.version} is {_state(entry)}" for entry in versions), "; ")
        )

    # --- watching

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after each change, until the returned callable is called (any number of times)."""
        token = object()
        self._subscribers[token] = callback

        def unsubscribe() -> None:
            self._subscribers.pop(token, None)

        return unsubscribe

    def _changed(self) -> None:
        for token, callback in tuple(self._subscribers.items()):
            if token in self._subscribers:  # an earlier callback may have ended this one's call
                callback()


def _state(entry: ServedVersion) -> str:
    return f"{entry.state.value}: {entry.reason}" if entry.reason else entry.state.value
