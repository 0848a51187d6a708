"""What the control plane answers, as programs read it. Times are seconds since 1970, durations seconds."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Fault(_Answer):
    field: str
    message: str


class Refusal(_Answer):
    """Every answer that is no success. Some have more beside it: a stale generation comes with the current one."""

    model_config = ConfigDict(extra="allow")

    error: str
    faults: list[Fault] = []


class Silent(_Answer):
    """A worker that has not done what was asked, and why."""

    worker: str
    reason: str


class Difference(_Answer):
    """One place in which two routes differ; null where there is nothing."""

    path: str
    before: Any = None
    after: Any = None


class Version(_Answer):
    model: str
    version: str
    state: str
    """READY in every live worker; else what it is in one that does not serve it; `retired`, or `not loaded`."""
    reason: str = ""
    states: dict[str, int] = {}
    """In how many live workers it is in each state."""
    is_registered: bool
    is_retired: bool = False
    is_routed: bool = False
    """The model's route names it."""
    digest: str | None = None
    path: str | None = None
    signature: dict[str, Any] | None = None
    lineage: dict[str, Any] = {}
    card: dict[str, Any] = {}
    registered_at: float | None = None
    registered_by: str | None = None
    fault: str = ""
    """Why what is served is not what is registered."""


class Model(_Answer):
    name: str
    versions: list[Version]
    generation: int | None = None
    """Of its route; null while it has none."""
    route: dict[str, Any] | None = None


class Models(_Answer):
    models: list[Model]


class VersionAdded(_Answer):
    model: str
    version: str
    digest: str
    workers: list[str]
    """That have it loaded and warm: all that are alive."""


class VersionsAdded(_Answer):
    versions: list[VersionAdded]


class VersionRetired(_Answer):
    model: str
    version: str
    unloaded: list[str]
    """Workers."""
    missing: list[Silent]


class Route(_Answer):
    """One generation of a model's route."""

    model: str
    generation: int
    route: dict[str, Any]
    automatic: bool
    actor: str
    reason: str
    at: float


class RouteInForce(Route):
    acknowledged: list[str]
    """Workers that have it in force."""
    missing: list[Silent]
    faults: dict[str, str]
    """By worker, why something in it does not serve there."""


class Routes(_Answer):
    routes: list[Route]


class RouteDiff(_Answer):
    model: str
    before: Route
    after: Route
    diff: list[Difference]


class RouteApplied(_Answer):
    model: str
    generation: int
    route: dict[str, Any]
    """As it was understood and is kept."""
    diff: list[Difference]
    """To the route before."""
    is_dry_run: bool = False
    loads: list[str] = []
    """Versions that had to be loaded first; in a dry run, that would have to be."""
    acknowledged: list[str] = []
    missing: list[Silent] = []
    live_after_s: float | None = None
    """From the commit until the last live worker had it in force; null when one has not."""


class Worker(_Answer):
    worker: str
    index: int
    host: str
    pid: int
    incarnation: str
    is_live: bool
    is_ready: bool
    started_at: float
    seen_at: float
    silent_s: float
    revision: int
    generations: dict[str, int]
    versions: dict[str, dict[str, str]]
    """Model -> version -> state."""
    faults: dict[str, str]
    """Model -> why something in its route does not serve; under the empty name, what is wrong with the worker."""


class Workers(_Answer):
    workers: list[Worker]


class StoreStatus(_Answer):
    name: str
    is_up: bool
    fault: str
    revision: int
    is_ephemeral: bool
    """What is in it is gone when the gateway stops."""


class ControlStatus(_Answer):
    pid: int
    started_at: float
    uptime_s: float
    leads: bool
    term: int | None


class Status(_Answer):
    gateway: str
    """Its own version."""
    ok: bool
    """Nothing below is wrong."""
    wrong: list[str]
    """In words, what is."""
    control: ControlStatus
    store: StoreStatus
    workers: list[Worker]
    n_models: int
    n_versions_ready: int


class AuditEntry(_Answer):
    seq: int
    at: float
    actor: str
    action: str
    subject: str
    reason: str
    before: Any
    after: Any
    hash: str


class AuditLog(_Answer):
    entries: list[AuditEntry]
    """Newest first."""


class AuditVerdict(_Answer):
    ok: bool
    n: int
    fault: str
    head: str


class Pairs(_Answer):
    version: str
    """The shadow's."""
    key: str
    """Stage/version/arm of the other side."""
    counts: dict[str, Any]
    """Integers, added up over workers."""
    rates: dict[str, Any]
    """What people ask first, made of them."""


class ShadowRequests(_Answer):
    version: str
    stage: str
    counts: dict[str, Any]
    """How many requests were drawn for it, and what became of those that have no pair."""


class Shadows(_Answer):
    model: str
    pairs: list[Pairs]
    requests: list[ShadowRequests]


class Disagreement(_Answer):
    version: str
    key: str
    at: float
    sample: Any


class Disagreements(_Answer):
    model: str
    disagreements: list[Disagreement]
