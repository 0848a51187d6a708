"""One version on its servers: sends batches to the fleet, asks it how it is, and knows when what it says has changed.

An answer is believed only over a connection on which the model has been found to be what it was at load: each new
connection is asked for the model's metadata before it gets a batch. A server where it differs is not ready, and says
why. Affinity: owning loop only.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import grpc.aio

from gateway.backends.triton import blame
from gateway.backends.triton.blame import Blame, Failure
from gateway.backends.triton.described import Described
from gateway.backends.triton.endpoint import Endpoint, Outcome, Sign, State
from gateway.backends.triton.fleet import Fleet
from gateway.backends.triton.link import Link, Links
from gateway.backends.triton.resolve import addresses_of
from gateway.config.triton import Triton
from gateway.errors import LoadError
from gateway.observability import logs

PROBE_TIMEOUT_S = 1.0
IDLE_TICK_S = 0.5
BUSY_TICK_S = 0.1
"""How often the fleet is asked whom to probe: it has its own idea of when."""
DOUBT_EVERY_S = 1.0
"""A caller whose input is refused again and again does not have the model asked for again and again."""
LEAST_LEFT_S = 0.001

_leaving: set[asyncio.Task[None]] = set()
"""Who sees out members that are no longer in a list: the loop itself keeps no task alive."""

Headers = tuple[tuple[str, str], ...]


class Member:
    """An endpoint's connection, and what was found over it."""

    __slots__ = ("calls", "checked", "checking", "doubted_s", "endpoint", "link", "lost")

    def __init__(self, endpoint: Endpoint, link: Link) -> None:
        self.endpoint, self.link = endpoint, link
        self.checked = -1
        """The link's generation at the last check; -1: in doubt."""
        self.checking: asyncio.Task[str] | None = None
        self.doubted_s = float("-inf")
        self.calls: set[Any] = set()
        self.lost: set[Any] = set()
        """Calls that were given up because the server is down."""


class Remote:
    """`on_state(reason)` hears when there is nobody to ask any more, and why, and "" when there is again."""

    def __init__(
        self,
        title: str,
        model: str,
        version: str,
        settings: Triton,
        addresses: Mapping[str, float],
        wish: int | str,
        described: Described,
        links: Links,
        on_state: Callable[[str], None],
    ) -> None:
        self.title, self.model, self.version = title, model, version
        self.settings, self._wish, self._described, self._links = settings, wish, described, links
        self._on_state = on_state
        self.headers: Headers = settings.headers()
        self._members: dict[Endpoint, Member] = {}
        self.fleet = Fleet(addresses, now_s=time.monotonic(), listener=self._moved)
        for endpoint in self.fleet.endpoints:
            self._join(endpoint)
        self._first_round = asyncio.Event()
        self._wake = asyncio.Event()
        self._probes: set[asyncio.Task[None]] = set()
        self._state = ""
        self._is_closed = False
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._tick())]
        if settings.dns:
            self._tasks.append(loop.create_task(self._resolve()))

    # --- batches

    async def infer(self, request: bytes, rows: int, deadline_s: float, headers: Headers = ()) -> tuple[bytes, bool]:
        """The answer, and whether the first attempt gave it. `deadline_s` is monotonic, 0: none. Failure: of the last
        attempt.
        """
        if not self._first_round.is_set():
            await self._first_round.wait()
        tried: set[Endpoint] = set()
        failure: Failure | None = None
        while True:
            now_s = time.monotonic()
            endpoint = self.fleet.pick(rows, now_s, tried)
            if endpoint is None:
                raise failure or blame.nobody(self.title, self.fleet.why_none())
            try:
                if self.settings.hedge and not tried and len(self._members) > 1:
                    return await self._hedged(endpoint, request, rows, deadline_s, headers), not tried
                return await self._attempt(endpoint, request, rows, deadline_s, headers, bool(tried)), not tried
            except Failure as error:
                failure = error
            tried.add(endpoint)
            self._wake.set()
            now_s = time.monotonic()
            late = deadline_s and deadline_s - now_s < LEAST_LEFT_S
            if not failure.may_retry or not self.settings.retry or late or len(tried) >= len(self._members):
                raise failure
            if not self.fleet.may_retry(now_s):
                raise failure

    async def _hedged(
        self, endpoint: Endpoint, request: bytes, rows: int, deadline_s: float, headers: Headers
    ) -> bytes:
        """Two attempts, the second when the first is late; who answers first wins, and the other is called off."""
        loop = asyncio.get_running_loop()
        attempts = [loop.create_task(self._attempt(endpoint, request, rows, deadline_s, headers, False))]
        try:
            await asyncio.wait(attempts, timeout=self.fleet.hedge_after_s())
            if not attempts[0].done():
                now_s = time.monotonic()
                other = self.fleet.pick(rows, now_s, {endpoint})
                if other is not None and self.fleet.may_retry(now_s):
                    attempts.append(
                        loop.create_task(self._attempt(other, request, rows, deadline_s, headers, True))
                    )
            while True:
                done, waiting = await asyncio.wait(attempts, return_when=asyncio.FIRST_COMPLETED)
                right = [task for task in done if task.exception() is None]
                if right or not waiting:
                    return (right or [attempts[0]])[0].result()
                await asyncio.wait(waiting)
        finally:
            for task in attempts:
                if not task.done():
                    task.cancel()
            await asyncio.gather(*attempts, return_exceptions=True)

    async def _attempt(
        self, endpoint: Endpoint, request: bytes, rows: int, deadline_s: float, headers: Headers, again: bool
    ) -> bytes:
        fleet, member = self.fleet, self._members[endpoint]
        began_s = time.monotonic()
        fleet.started(endpoint, rows, began_s, again=again)
        outcome, call, is_ours = Outcome.CANCELLED, None, True
        try:
            if member.checked != member.link.generation and (fault := await self._check(member)):
                outcome = Outcome.FAILED
                raise Failure(Blame.SERVER, blame.Code.UNAVAILABLE, f"{self.title}: {fault}", "", outcome, True)
            timeout_s = self.settings.attempt_s
            if deadline_s:
                left_s = max(deadline_s - time.monotonic(), LEAST_LEFT_S)
                timeout_s, is_ours = min(timeout_s, left_s), timeout_s < left_s
            call = member.link.infer(request, timeout=timeout_s, metadata=(*self.headers, *headers))
            member.calls.add(call)
            answer: bytes = await call
            outcome = Outcome.OK
            return answer
        except grpc.aio.AioRpcError as error:
            code = error.code().value[0]
            failure = blame.of_status(code, error.details() or "", self.title, endpoint.address, is_ours=is_ours)
            outcome = failure.outcome
            if failure.blame in (Blame.CALLER, Blame.SERVER):
                self.doubt(member)
            raise failure from None
        except asyncio.CancelledError:
            if call is not None and call in member.lost:
                outcome = Outcome.LOST
                raise blame.lost(self.title, endpoint.address, endpoint.reason) from None
            raise
        finally:
            if call is not None:
                member.calls.discard(call)
                member.lost.discard(call)
            now_s = time.monotonic()
            fleet.ended(endpoint, rows, outcome, now_s - began_s, now_s, again=again)

    # --- what is known of the servers

    def doubt(self, member: Member) -> None:
        """Before its next batch, or soon, it is asked again what the model is."""
        now_s = time.monotonic()
        if now_s - member.doubted_s >= DOUBT_EVERY_S:
            member.doubted_s, member.checked = now_s, -1
            self._wake.set()

    def doubt_all(self) -> None:
        """An answer was not what the signature promised, and it is not known whose."""
        for member in self._members.values():
            self.doubt(member)

    async def _check(self, member: Member) -> str:
        """What differs there, "" when nothing does; one question at a time, whoever wants to know. RpcError."""
        if member.checking is None:
            member.checking = asyncio.get_running_loop().create_task(self._compare(member))
        task = member.checking
        return await asyncio.shield(task)

    async def _compare(self, member: Member) -> str:
        generation = member.link.generation
        timeout_s = max(PROBE_TIMEOUT_S, self.settings.connect_s)
        try:
            now = await member.link.describe(self.model, self.version, self._wish, timeout_s, self.headers)
            difference = self._described.difference(now)
        except LoadError as error:
            difference = str(error)
        finally:
            member.checking = None
        if difference:
            self._tell_probe(member, Sign.NOT_READY, f"its signature is not what it was at load: {difference}")
            return f"Triton at {member.endpoint.address} has another signature now: {difference}"
        member.checked = generation
        return ""

    async def _probe(self, member: Member) -> None:
        asked_s = time.monotonic()
        link = member.link
        sign, detail = Sign.READY, ""
        try:
            if not await link.is_ready(self.model, self.version, PROBE_TIMEOUT_S, self.headers):
                sign, detail = Sign.NOT_READY, f"model {self.model!r} version {self.version or 'any'} is not ready there"
            elif member.checked != link.generation and (detail := await self._check(member)):
                sign = Sign.NOT_READY
        except grpc.aio.AioRpcError as error:
            failure = blame.of_status(
                error.code().value[0], error.details() or "", self.title, member.endpoint.address, is_ours=True
            )
            if failure.outcome is Outcome.LATE:
                sign, detail = Sign.SILENT, "it does not answer"
            elif failure.blame is Blame.NETWORK:
                sign, detail = Sign.UNREACHABLE, "it cannot be reached"
            else:
                sign, detail = Sign.NOT_READY, failure.detail or failure.text
        self._tell_probe(member, sign, detail, asked_s)

    def _tell_probe(self, member: Member, sign: Sign, detail: str, asked_s: float | None = None) -> None:
        now_s = time.monotonic()
        if member.endpoint in self._members and not self._is_closed:
            self.fleet.probed(member.endpoint, sign, detail, now_s if asked_s is None else asked_s, now_s)
            self._look()

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            for endpoint in self.fleet.probes_due(time.monotonic()):
                task = loop.create_task(self._probe(self._members[endpoint]))
                self._probes.add(task)
                task.add_done_callback(self._probes.discard)
            if not self._first_round.is_set() and self._probes:
                await asyncio.wait(self._probes)
            self._look()
            endpoints = self.fleet.endpoints
            calm = all(each.state is State.READY and not each.outstanding and not each.failures for each in endpoints)
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), IDLE_TICK_S if calm else BUSY_TICK_S)

    def _look(self) -> None:
        """Whether there is anybody to ask."""
        endpoints = self.fleet.endpoints
        alive = any(each.state in (State.READY, State.PROBATION, State.EJECTED) for each in endpoints)
        if alive or (endpoints and all(each.state is not State.STARTING for each in endpoints)):
            self._first_round.set()
        if not self._first_round.is_set():
            return
        state = "" if alive else f"none of its Triton servers is ready: {self.fleet.why_none()}"
        if state != self._state and bool(state) != bool(self._state):
            self._on_state(state)
        self._state = state

    def _moved(self, endpoint: Endpoint, before: State, after: State) -> None:
        log = logs.get()
        fields = {"version": self.title, "endpoint": endpoint.address, "before": before.value, "now": after.value}
        if after is State.READY:
            log.info("Triton server is ready", **fields)
        else:
            log.warning("Triton server is not asked as before", **fields, reason=endpoint.reason)
        member = self._members.get(endpoint)
        if after is State.DOWN and member:
            member.checked = -1
            member.lost |= member.calls
            for call in [*member.calls]:
                call.cancel()
        if after is State.GONE and (member := self._members.pop(endpoint, None)):
            task = asyncio.get_running_loop().create_task(self._see_out(member))
            _leaving.add(task)
            task.add_done_callback(_leaving.discard)

    # --- who belongs to it

    def _join(self, endpoint: Endpoint) -> None:
        self._members[endpoint] = Member(endpoint, self._links.take(endpoint.address, self.settings))

    async def _see_out(self, member: Member) -> None:
        """It is no longer in the list; what is on its way there ends."""
        while member.calls:
            await asyncio.wait({asyncio.ensure_future(_ended(call)) for call in member.calls})
        self._links.give_back(member.link, self.settings)

    async def _resolve(self) -> None:
        while True:
            try:
                found = await addresses_of(self.settings.dns or "")
            except OSError as error:
                logs.get().warning("name of Triton servers", name=self.settings.dns, error=str(error))
            else:
                if set(found) != {each.address for each in self.fleet.endpoints}:
                    logs.get().info("name of Triton servers", name=self.settings.dns, addresses=found)
                    self.fleet.set_members(found, time.monotonic())
                    for endpoint in self.fleet.endpoints:
                        if endpoint not in self._members:
                            self._join(endpoint)
                    self._wake.set()
            await asyncio.sleep(self.settings.resolve_every / 1e6)

    def close(self) -> None:
        """Nothing is on its way any more."""
        if self._is_closed:
            return
        self._is_closed = True
        for task in (*self._tasks, *self._probes):
            task.cancel()
        for member in self._members.values():
            if member.checking:
                member.checking.cancel()
            self._links.give_back(member.link, self.settings)
        self._members.clear()


async def _ended(call: Any) -> None:
    with contextlib.suppress(Exception, asyncio.CancelledError):
        await call
