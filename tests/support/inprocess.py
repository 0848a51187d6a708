"""A worker's data plane on a loop in a thread: real sockets, real models, and its routing in the test's hands."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from gateway.config.limits import Limits
from gateway.native.connection import Hub
from gateway.native.http2 import SessionLimits
from gateway.registry.repository import scan
from gateway.routing.route import parse
from gateway.serving.catalog import Catalog
from gateway.serving.front import Front
from gateway.serving.held import Holdings
from gateway.serving.listener import Listener
from gateway.serving.loader import Loader
from gateway.serving.rest import surface
from gateway.serving.rest.classification import Labels
from gateway.serving.routing import RouteInForce, Routing
from gateway.serving.rpc import Services

T = TypeVar("T")


class InProcess:
    """Everything but `do` and `url` belongs to its loop."""

    async def start(self, models: Path, forward_headers: str | None = None) -> None:
        loop = self.loop = asyncio.get_running_loop()
        limits = Limits()
        self.faults: list[BaseException] = []
        self.catalog = Catalog()
        holdings: Holdings = {}
        self.services = Services(self.catalog, "0", (), holdings=holdings, wake=lambda: self.hub.wake())
        pattern = re.compile(forward_headers) if forward_headers else None
        self.hub = Hub(
            SessionLimits(forward_pattern=pattern),
            limits.max_in_flight_bytes,
            self.services.unary,
            self.services.streaming,
            self.faults.append,
            loop,
            limits.max_connections,
            10**7,
            10**7,
            10**7,
        )
        labels = Labels(models)
        router = surface.build(self.hub, self.catalog, self.services, labels, limits, "0", self.faults.append, pattern)
        self.front = Front(self.hub, router, limits, self.faults.append)
        self.hub.http1 = self.front.connect
        self.routing = Routing(partial(setattr, self.hub, "routes"), self.catalog.defaults)
        self.loader = Loader(self.catalog, self.hub, 1, lambda *_: None, models, holdings, self.routing)
        self.listener = Listener("127.0.0.1", [0], self.hub.protocol, None)
        (port,) = await self.listener.open()
        self.url = f"127.0.0.1:{port}"
        await self.loader.load_all(scan(models))
        self.catalog.started = True

    async def stop(self) -> None:
        self.hub.abort()
        self.front.abort()
        await self.listener.close()
        self.loader.close()
        await self.loader.closed()
        self.hub.close()

    def do(self, work: Callable[[], T]) -> T:
        """On the loop; its result."""

        async def run() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(60)

    def wait(self, work: Any) -> Any:
        """For a coroutine on the loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def route(
        self, documents: Mapping[str, Any], generation: int = 1, *, automatic: bool = False, revision: int = 0
    ) -> dict[str, str]:
        """Puts these routes in force, and says what does not serve."""
        routes = {model: RouteInForce(parse(document), generation, automatic) for model, document in documents.items()}
        return self.do(lambda: self.routing.apply(routes, revision or generation))

    def counted(self) -> dict[str, int]:
        """Requests by version and arm."""

        def read() -> dict[str, int]:
            found = {}
            for arm in self.routing.arms.totals():
                if n := sum(arm.statistics()["requests"].values()):
                    found[f"{arm.version} {arm.name}"] = n
            return found

        return self.do(read)


@contextmanager
def serving(models: Path, **wishes: Any) -> Iterator[InProcess]:
    """Until the end of the block; faults that it reports fail the test."""
    gateway = InProcess()
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="in-process gateway")
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(gateway.start(models, **wishes), loop).result(60)
        try:
            yield gateway
        finally:
            asyncio.run_coroutine_threadsafe(gateway.stop(), loop).result(60)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    assert not gateway.faults
