"""Asks the endpoints whether they are ready, as often as the fleet wants to know. Owning loop only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from gateway.backends.triton.endpoint import Endpoint, Sign
from gateway.backends.triton.fleet import Fleet
from gateway.observability import logs

Ask = Callable[[Endpoint], Coroutine[Any, Any, tuple[Sign, str]]]
"""What an endpoint says of itself and the model, in words too. It may take as long as it likes: it is cancelled."""

TURN_S = 0.05
TIMEOUT_S = 0.5


class Prober:
    def __init__(self, fleet: Fleet, ask: Ask, clock: Callable[[], float], timeout_s: float = TIMEOUT_S) -> None:
        self._fleet, self._ask, self._clock, self._timeout_s = fleet, ask, clock, timeout_s
        self._asking: dict[Endpoint, asyncio.Task[None]] = {}
        self._turns: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._turns is None:
            self._turns = asyncio.ensure_future(self._run())

    async def once(self) -> None:
        """Every endpoint, now. Returns when all have answered or their time is over."""
        await asyncio.gather(*(self._probe(endpoint) for endpoint in self._fleet.endpoints))

    async def stop(self) -> None:
        tasks = [*self._asking.values(), *([self._turns] if self._turns else [])]
        self._turns = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            for endpoint in self._fleet.probes_due(self._clock()):
                if endpoint not in self._asking:
                    task = asyncio.ensure_future(self._probe(endpoint))
                    self._asking[endpoint] = task
                    task.add_done_callback(lambda _, endpoint=endpoint: self._asking.pop(endpoint, None))  # type: ignore[misc]
            await asyncio.sleep(TURN_S)

    async def _probe(self, endpoint: Endpoint) -> None:
        asked_s = self._clock()
        try:
            async with asyncio.timeout(self._timeout_s):
                sign, detail = await self._ask(endpoint)
        except TimeoutError:
            sign, detail = Sign.SILENT, f"does not answer within {self._timeout_s:g} s whether it is ready"
        except Exception as error:
            logs.get().exception("probe failed", endpoint=endpoint.address)
            sign, detail = Sign.SILENT, f"could not be asked: {error}"
        self._fleet.probed(endpoint, sign, detail, asked_s, self._clock())
