"""The worker's line to the store: orders in, acknowledgements and reports out, from a thread of its own.

The loop is only ever told; it waits for nothing here. When the store is out of reach the worker goes on with the routes
it has, says so, and finds its way back by itself. What is applied is told to the store at once: who changes a route
waits for that.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from gateway.errors import GatewayError, Unavailable
from gateway.observability import logs
from gateway.routing.route import RouteError, parse
from gateway.serving import lastroutes
from gateway.serving.catalog import Catalog
from gateway.serving.lastroutes import KeptRoute
from gateway.serving.orders import Key, Orders, changes, remembered
from gateway.serving.routing import RouteInForce
from gateway.serving.sources import Every, Read, Sources

if TYPE_CHECKING:
    from gateway.store import Store

HEARTBEAT_S = 1.0
WAIT_S = 0.1
"""At most, for a change in the store; then what this worker has to tell gets its turn."""
ACK_TIMEOUT_S = 2.0
"""A newer route that is not in force after that takes the worker out of ready: its siblings answer by the new one."""
RETRY_S = 0.5
"""After a failure of the store, or of a change."""
CLOSE_PATIENCE_S = 1.0

T = TypeVar("T")


class Versions(Protocol):
    """Who loads and unloads: gateway.serving.loader.Loader."""

    async def load_version(self, model: str, version: str) -> None: ...

    async def unload_version(self, model: str, version: str) -> None: ...


class Routes(Protocol):
    """What is in force: gateway.serving.routing.Routing. On the loop."""

    @property
    def repinned(self) -> Mapping[str, str]: ...

    def apply(self, routes: Mapping[str, RouteInForce], revision: int) -> Mapping[str, str]: ...

    def faults(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class AgentNow:
    """For metrics and status."""

    is_store_up: bool
    revision: int
    fault: str


class Agent:
    """One per worker; made on its loop. `url` is the store's and `state` its folder, `folder` is where the last routes
    are kept. `is_first`: all workers are being started, so nobody can have changed anything meanwhile. Nothing happens
    before `start`.
    """

    def __init__(
        self,
        url: str,
        index: int,
        catalog: Catalog,
        loader: Versions,
        routing: Routes,
        *,
        state: Path | None = None,
        folder: Path | None = None,
        is_first: bool = False,
    ) -> None:
        self._url, self._index, self._state, self._folder = url, index, state, folder
        self._catalog, self._loader, self._routing = catalog, loader, routing
        self._loop = asyncio.get_running_loop()
        self.incarnation = uuid.uuid4().hex
        self._started_at = time.time()
        self._log = logs.get()
        self._known = lastroutes.read(folder)
        self._in_force: dict[str, RouteInForce] = {}
        self._documents: dict[str, KeptRoute] = {}
        """Of what is in force."""
        self._load_faults: dict[Key, str] = {}
        self._loading: set[Key] = set()
        self._sources = Sources()
        self._errands: deque[Callable[[Store], None]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._is_draining = False
        self._told_s = float("-inf")
        self._behind_since_s: float | None = None
        self._is_store_up = False
        self._store_fault = "not reached yet"
        self._is_file_current = False
        self._synced: asyncio.Future[None] = self._loop.create_future()
        self._is_first = is_first
        self._is_serving = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agent", daemon=True)

    # --- the loop's side

    @property
    def unwanted(self) -> frozenset[Key]:
        """Versions that are not to be loaded at start."""
        return self._known.unwanted

    @property
    def now(self) -> AgentNow:
        return AgentNow(self._is_store_up, self._known.revision, self._store_fault)

    def add_source(self, kind: str, every_s: Every, read: Read) -> None:
        """Have `read()` called on the loop every so often, and what it returns written to the store. Reports are
        cumulative: one that gets lost is made up for by the next.
        """
        self._sources.add(kind, every_s, read)

    def start(self) -> None:
        """Put the last routes into force, before anything is loaded, and begin to look for newer ones."""
        if self._known.routes:
            routes, unreadable = self._parsed(self._known.routes)
            for model, fault in unreadable.items():
                self._log.error("last route cannot be read", model=model, error=fault)
            self._put(routes, self._known.revision)
        if self._is_first and lastroutes.are_current(self._known, self._url):
            self._synced.set_result(None)
        else:
            self._is_serving.set()
        self._thread.start()

    async def settled(self, patience_s: float) -> None:
        """Returns when the store's orders are in force, or the store turned out to be out of reach."""
        await asyncio.wait({asyncio.ensure_future(asyncio.shield(self._synced))}, timeout=patience_s)

    def poke(self) -> None:
        """Something has changed that the store should hear of soon."""
        self._told_s = float("-inf")
        self._wake.set()

    def serving(self) -> None:
        """The worker is ready; what is expensive may begin."""
        self._is_serving.set()
        self.poke()

    def errand(self, work: Callable[[Store], None]) -> None:
        """Have `work(store)` done once, in the agent's thread; what fails is logged."""
        self._errands.append(work)
        self._wake.set()

    def drain(self) -> None:
        """Say that this worker is on its way out: nobody need wait for it."""
        self._is_draining = True
        self.poke()

    async def close(self) -> None:
        """Say goodbye, if the store listens."""
        self._is_draining = True
        self._stop.set()
        self._is_serving.set()
        self._wake.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, CLOSE_PATIENCE_S)
        for task in self._tasks:
            task.cancel()

    # --- the thread

    def _run(self) -> None:
        try:
            self._is_serving.wait()
            while not self._stop.is_set():
                try:
                    self._attend(self._connect())
                except GatewayError as error:
                    self._lost(str(error))
                except Exception as error:
                    self._log.exception("agent failed", error=str(error))
                    self._lost(f"{type(error).__name__}: {error}")
                self._wake.wait(RETRY_S)
                self._wake.clear()
        except RuntimeError:  # the loop is closed: the process ends
            if not self._stop.is_set():
                raise

    def _connect(self) -> Store:
        """The store as others have made it."""
        if self._url.startswith("sqlite:") and not Path(self._url.removeprefix("sqlite:///")).exists():
            raise Unavailable("the store is not there yet: the control process makes it")
        from gateway.store import Store

        return Store.open(self._url, self._state)

    def _attend(self, store: Store) -> None:
        """Until it fails, or the end."""
        try:
            seen = None
            revision = store.revision()
            while not self._stop.is_set():
                if revision != seen and self._follow(store, revision):
                    seen = revision
                self._tell_if_due(store)
                self._send(store)
                while self._errands:
                    self._do(store, self._errands.popleft())
                if self._wake.is_set():
                    self._wake.clear()
                    continue
                if revision != seen:
                    self._wake.wait(RETRY_S)
                    revision = store.revision()
                else:
                    revision = store.wait_for_change(revision, min(WAIT_S, max(0.0, self._pause_s())))
            self._tell(store)
        finally:
            store.close()

    def _pause_s(self) -> float:
        return min(self._told_s + HEARTBEAT_S, self._sources.due_s) - time.monotonic()

    # --- orders

    def _follow(self, store: Store, revision: int) -> bool:
        """Put what the store says into force; whether it worked."""
        began_s = time.monotonic()
        orders = Orders(
            revision,
            {
                record.model: KeptRoute(
                    generation=record.generation, document=record.document, automatic=record.automatic
                )
                for record in store.routes().values()
            },
            frozenset(store.wanted()),
            frozenset((record.model, record.version) for record in store.versions() if record.is_retired),
        )
        self._found()
        routes, unreadable = self._parsed(orders.routes)
        fault = "; ".join(f"model {model}: {text}" for model, text in unreadable.items())
        try:
            work = self._call(lambda: self._obey(orders, routes), ACK_TIMEOUT_S)
        except Exception as error:
            fault = "the loop did not get to it" if isinstance(error, TimeoutError) else str(error)
        else:
            if work or not self._synced.done():
                self._loop.call_soon_threadsafe(self._after, work)
        if not fault:
            self._behind_since_s = None
            self._hold_back("")
        elif self._behind_since_s is None:
            self._behind_since_s = began_s
            self._log.error("routes cannot be applied", revision=revision, error=fault)
        elif time.monotonic() - self._behind_since_s >= ACK_TIMEOUT_S:
            self._hold_back(f"routes of revision {revision} cannot be applied: {fault}")
        self._tell(store)
        self._keep()
        return not fault

    def _parsed(self, kept: Mapping[str, KeptRoute]) -> tuple[dict[str, RouteInForce], dict[str, str]]:
        """Routes; and why some cannot be read. A model whose route cannot be read keeps the one it had."""
        routes, unreadable = {}, {}
        for model, each in kept.items():
            before = self._in_force.get(model)
            if before and self._documents.get(model) == each:
                routes[model] = before
                continue
            try:
                routes[model] = RouteInForce(parse(each.document), each.generation, each.automatic)
                self._documents[model] = each
            except RouteError as error:
                unreadable[model] = "; ".join(str(error).splitlines())
                if before:
                    routes[model] = before
        return routes, unreadable

    def _put(self, routes: dict[str, RouteInForce], revision: int) -> None:
        """On the loop."""
        self._routing.apply(routes, revision)
        self._in_force = routes

    def _obey(self, orders: Orders, routes: dict[str, RouteInForce]) -> list[asyncio.Task[None]]:
        """On the loop. The tasks that load what the orders ask for."""
        self._put(routes, orders.revision)
        todo = changes(orders, self._known, self._ready())
        self._known = remembered(orders, self._known)
        self._is_file_current = False
        for key in [key for key in self._load_faults if key not in self._known.wanted or key in todo.load]:
            del self._load_faults[key]
        for key in todo.unload:
            self._begin(self._unload(*key))
        self._loading |= todo.load  # known to be on its way before the task gets to say so
        return [self._begin(self._load(*key)) for key in sorted(todo.load)]

    def _begin(self, work: Any) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _load(self, model: str, version: str) -> None:
        try:
            await self._loader.load_version(model, version)
        except GatewayError as error:
            self._load_faults[model, version] = str(error)
            self._log.error("version cannot be loaded", model=model, version=version, reason=str(error))
        self._loading.discard((model, version))
        self.poke()

    async def _unload(self, model: str, version: str) -> None:
        try:
            await self._loader.unload_version(model, version)
        except GatewayError as error:
            self._log.error("version cannot be unloaded", model=model, version=version, reason=str(error))
        self.poke()

    def _after(self, work: list[asyncio.Task[None]]) -> None:
        """On the loop: the first orders are followed when what they ask for is loaded."""
        if self._synced.done():
            return

        def done(_: Any = None) -> None:
            if all(task.done() for task in work) and not self._synced.done():
                self._synced.set_result(None)

        for task in work:
            task.add_done_callback(done)
        done()

    def _hold_back(self, reason: str) -> None:
        def set_it() -> None:
            if self._catalog.held_back != reason:
                self._log.warning(
                    "worker is taken out of ready" if reason else "worker is ready again", reason=reason or "caught up"
                )
            self._catalog.held_back = reason

        self._loop.call_soon_threadsafe(set_it)

    def _keep(self) -> None:
        """The file, for who starts without the store."""
        if self._is_file_current:
            return
        try:
            lastroutes.write(self._folder, self._known)
            self._is_file_current = True
        except OSError as error:
            self._log.error("the last routes cannot be kept", folder=str(self._folder), error=error.strerror)

    # --- words to the store

    def _tell_if_due(self, store: Store) -> None:
        if time.monotonic() - self._told_s >= HEARTBEAT_S:
            self._tell(store)
            self._keep()

    def _tell(self, store: Store) -> None:
        """This worker's row. A store that can be read and not written to is still good for orders."""
        from gateway.store import StoreUnavailable, WorkerRecord

        self._told_s = time.monotonic()
        try:
            generations, versions, faults, is_ready = self._call(self._status, ACK_TIMEOUT_S)
        except TimeoutError:
            return
        record = WorkerRecord(
            incarnation=self.incarnation,
            index=self._index,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=self._started_at,
            seen_at=time.time(),
            revision=self._known.revision,
            generations=generations,
            versions=versions,
            faults=faults,
            is_ready=is_ready,
        )
        try:
            store.report_worker(record)
        except StoreUnavailable as error:
            store.revision()  # or it cannot be read either, and that is for the caller
            self._lost(str(error))
        else:
            self._found()

    def _status(self) -> tuple[dict[str, int], dict[str, Any], dict[str, Any], bool]:
        """On the loop."""
        versions: dict[str, Any] = {}
        for model in self._catalog.models():
            for entry in self._catalog.versions(model):
                state = {"state": entry.state.value, "reason": entry.reason}
                versions.setdefault(model, {})[entry.version] = state
        for (model, version), reason in self._load_faults.items():
            if version not in versions.get(model, {}):
                versions.setdefault(model, {})[version] = {"state": "UNAVAILABLE", "reason": reason}
        for model, version in self._loading:
            versions.setdefault(model, {})[version] = {"state": "LOADING", "reason": ""}
        for model, version in self._routing.repinned.items():
            versions[model][version]["is_repinned"] = True
        faults: dict[str, Any] = dict(self._routing.faults())
        if self._is_draining:
            faults[""] = "stopped" if self._stop.is_set() else "draining"
        elif self._catalog.held_back:
            faults[""] = self._catalog.held_back
        generations = {model: route.generation for model, route in self._in_force.items()}
        return generations, versions, faults, self._catalog.ready and not self._is_draining

    def _ready(self) -> set[Key]:
        names = self._catalog.models()
        return {(m, entry.version) for m in names for entry in self._catalog.versions(m) if entry.is_ready}

    def _send(self, store: Store) -> None:
        """What sources have counted."""
        if fault := self._sources.send(store, self.incarnation, lambda read: self._call(read, ACK_TIMEOUT_S)):
            store.revision()  # or it cannot be read either, and that is for the caller
            self._lost(fault)

    def _do(self, store: Store, work: Callable[[Store], None]) -> None:
        try:
            work(store)
        except Exception as error:
            self._log.error("errand failed", error=str(error))

    # --- up and down

    def _found(self) -> None:
        if not self._is_store_up:
            self._is_store_up, self._store_fault = True, ""
            self._log.info("store is there", revision=self._known.revision)

    def _lost(self, fault: str) -> None:
        if self._is_store_up:
            self._log.error("store is out of reach, the last routes stay in force", error=fault)
        self._is_store_up, self._store_fault = False, fault
        if not self._synced.done():
            self._loop.call_soon_threadsafe(self._after, [])

    def _call(self, work: Callable[[], T], timeout_s: float) -> T:
        """Have it done on the loop. TimeoutError: the loop does not get to it; it may do it later."""
        result: concurrent.futures.Future[T] = concurrent.futures.Future()

        def do() -> None:
            if not result.set_running_or_notify_cancel():
                return
            try:
                result.set_result(work())
            except Exception as error:
                result.set_exception(error)

        self._loop.call_soon_threadsafe(do)
        try:
            return result.result(timeout_s)
        except concurrent.futures.TimeoutError:
            result.cancel()
            raise TimeoutError from None
