"""One version on its servers: sends batches to the fleet, asks it how it is, and knows when what it says has changed.

An answer is believed only over a connection on which the model has been found to be what it was at load: each new
connection is asked for the model's metadata before it gets a batch. A server where it differs is not ready, and says
why. Affinity: owning loop only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import grpc
import grpc.aio

from gateway.backends.base import Array
from gateway.backends.triton import blame
from gateway.backends.triton.blame import Blame, Failure
from gateway.backends.triton.cargo import Cargo
from gateway.backends.triton.courier import AttemptFailed, Courier, NobodyLeft, TooLate
from gateway.backends.triton.described import Described
from gateway.backends.triton.endpoint import Endpoint, Outcome, Sign, State
from gateway.backends.triton.fleet import Fleet
from gateway.backends.triton.link import Link, Links
from gateway.backends.triton.prober import Prober
from gateway.backends.triton.resolver import Resolver
from gateway.backends.triton.sequences import SequenceLost, Sequences
from gateway.backends.triton.sharing import BY_MEMORY, BY_MESSAGE, Home, Lease, Sharing
from gateway.backends.triton.steps import Step
from gateway.config.triton import Triton, split_address
from gateway.errors import Code, LoadError
from gateway.native.parcel import NotWritten, Parcel
from gateway.native.remote import AnswerMismatch
from gateway.observability import logs

PROBE_TIMEOUT_S = 1.0
"""A busy server on a busy machine may take its time."""
DOUBT_EVERY_S = 1.0
"""A caller whose input is refused again and again does not have the model asked for again and again."""
LEAST_LEFT_S = 0.001
LEAVING_POLL_S = 0.1

Headers = tuple[tuple[str, str], ...]

_USABLE = (State.READY, State.PROBATION, State.EJECTED)


class Member:
    """An endpoint's connection, and what was found over it."""

    __slots__ = ("checked", "checking", "doubted_s", "endpoint", "home", "link")

    def __init__(self, endpoint: Endpoint, link: Link) -> None:
        self.endpoint, self.link = endpoint, link
        self.checked = -1
        """The link's generation at the last check; -1: in doubt."""
        self.checking: asyncio.Task[str] | None = None
        self.doubted_s = float("-inf")
        self.home: Home | None = None
        """Whether it gets tensors by shared memory; None: it was not asked."""

    @property
    def is_checked(self) -> bool:
        return self.checked == self.link.generation and not (self.home and self.home.is_due)


class Remote:
    """`on_state(reason)` hears when there is nobody to ask any more, and why, and "" when there is again."""

    def __init__(
        self,
        title: str,
        names: tuple[str, str],
        settings: Triton,
        addresses: Mapping[str, float],
        wish: int | str,
        described: Described,
        links: Links,
        on_state: Callable[[str], None],
        in_flight_each: int = 1,
        *,
        shares: bool = False,
    ) -> None:
        """`shares`: tensors may go by shared memory, where the settings want it too."""
        self.title, self.names, self.settings = title, names, settings
        self._wish, self._described, self._links, self._on_state = wish, described, links, on_state
        self._headers = settings.headers()
        self._members: dict[Endpoint, Member] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self.on_down: set[Callable[[Endpoint], None]] = set()
        """Who has streams there."""
        self.on_in_flight: Callable[[int], object] | None = None
        """Hears how many batches its servers may have together, when there are more or fewer of them."""
        self._in_flight_each, self._n_servers = in_flight_each, len(addresses)
        self._state = ""
        self._is_closed = self._may_tell = False
        clock = time.monotonic
        self.fleet = Fleet(addresses, now_s=clock(), listener=self._moved)
        self.courier: Courier[list[Array]] = Courier(self.fleet, clock, hedges=settings.hedge)
        self._prober = Prober(self.fleet, self._ask, clock, PROBE_TIMEOUT_S)
        self._resolver: Resolver | None = None
        if settings.dns:
            host, port = split_address(settings.dns)
            self._resolver = Resolver(self.fleet, host, port, clock, every_s=settings.resolve_every / 1e6)
            self._resolver.start()
        self.sequences = Sequences(self.fleet)
        self._sharing = Sharing(title, settings, clock) if shares and settings.shared_memory != "off" else None
        self._first_round = asyncio.get_running_loop().create_task(self._begin())

    # --- batches

    @property
    def is_decoupled(self) -> bool:
        return self._described.is_decoupled

    @property
    def has_sequences(self) -> bool:
        return self._described.has_sequences

    async def infer(
        self,
        cargo: Cargo,
        deadline_s: float,
        headers: Headers = (),
        step: Step | None = None,
    ) -> list[Array]:
        """`deadline_s` is monotonic, 0: none. `step`: of a sequence, which has its server. Refusal, or Failure: of the
        last attempt.
        """
        await self.ready()
        send = partial(self._send, cargo, (*self._headers, *headers))
        try:
            only = self.endpoint_of(step) if step else None
            _, answer = await self.courier.carry(send, cargo.batch.n_rows, deadline_s or None, only)
            return answer
        except NobodyLeft as error:
            raise blame.nobody(self.title, str(error)) from None
        except TooLate as error:
            raise blame.late(self.title, str(error)) from None

    @property
    def is_begun(self) -> bool:
        """All servers have been asked once."""
        return self._first_round.done()

    async def ready(self) -> None:
        if not self._first_round.done():
            await asyncio.shield(self._first_round)

    def endpoint_of(self, step: Step) -> Endpoint:
        """Of a sequence. Failure."""
        try:
            endpoint = self.sequences.endpoint_of(step.key, time.monotonic(), start=step.start, end=step.end)
        except SequenceLost as lost:
            raise blame.gone(self.title, str(lost)) from None
        if endpoint is None:
            raise blame.nobody(self.title, self.fleet.why_none())
        return endpoint

    async def stream(self, endpoint: Endpoint, headers: Headers, left_s: float | None) -> Any:
        """A stream of serialized messages there, both ways, over a connection that has been checked. Failure."""
        await self.ready()
        member = self._member(endpoint)
        try:
            if not member.is_checked and (fault := await self._check(member)):
                text = f"{self.title}: Triton at {endpoint.address}: {fault}"
                raise Failure(Blame.SERVER, Code.UNAVAILABLE, text, "", Outcome.FAILED)
        except grpc.aio.AioRpcError as error:
            raise self.failure(error, endpoint) from None
        return member.link.stream(timeout=left_s, metadata=(*self._headers, *headers))

    def failure(self, error: grpc.aio.AioRpcError, endpoint: Endpoint) -> Failure:
        return self._failure(error, endpoint, is_ours=False)

    async def _send(self, cargo: Cargo, headers: Headers, endpoint: Endpoint, left_s: float | None) -> list[Array]:
        """One attempt."""
        member = self._member(endpoint)
        timeout_s, is_ours = self.settings.attempt_s, True
        if left_s is not None and left_s < timeout_s:
            timeout_s, is_ours = max(left_s, LEAST_LEFT_S), False
        try:
            if not member.is_checked and (fault := await self._check(member)):
                failure = self._changed(endpoint, fault)
            else:
                return await self._exchange(member, cargo, timeout_s, headers)
        except AnswerMismatch as error:
            self._doubt(member)
            text = f"{self.title} gave an answer that does not fit its signature"
            failure = Failure(
                Blame.SERVER, Code.INTERNAL, text, f"Triton at {endpoint.address}: {error}", Outcome.FAILED
            )
            raise AttemptFailed(failure.outcome, failure) from None
        except grpc.aio.AioRpcError as error:
            failure = self._failure(error, endpoint, is_ours=is_ours)
        if failure.blame in (Blame.CALLER, Blame.SERVER) and self._doubt(member):
            failure = await self._second_thought(member, failure)
        raise AttemptFailed(failure.outcome, failure)

    async def _exchange(self, member: Member, cargo: Cargo, timeout_s: float, headers: Headers) -> list[Array]:
        """By shared memory where that can be, and if it cannot after all, in the message."""
        until_s = time.monotonic() + timeout_s
        home, ways = member.home, member.endpoint.counts.ways
        if self._sharing and home and not home.reason and not cargo.is_forwarded:
            parcel = cargo.parcel()
            if lease := await self._sharing.lease(home, parcel.n_bytes):
                ways[BY_MEMORY] = ways.get(BY_MEMORY, 0) + 1
                outputs = await self._by_memory(member, home, parcel, lease, until_s, headers)
                if outputs is not None:
                    return outputs
        ways[BY_MESSAGE] = ways.get(BY_MESSAGE, 0) + 1
        message, left_s = cargo.message, max(until_s - time.monotonic(), LEAST_LEFT_S)
        return cargo.read(await member.link.infer(message, timeout=left_s, metadata=headers))

    async def _by_memory(
        self, member: Member, home: Home, parcel: Parcel, lease: Lease, until_s: float, headers: Headers
    ) -> list[Array] | None:
        """None: it did not go this way, and goes the other. RpcError; AnswerMismatch."""
        assert self._sharing
        is_answered = False
        try:
            request = parcel.fill(lease.name, lease.memory, lease)
            left_s = max(until_s - time.monotonic(), LEAST_LEFT_S)
            data = await member.link.infer(request, timeout=left_s, metadata=headers)
            is_answered = True
        except grpc.aio.AioRpcError as error:
            is_answered = error.code() is grpc.StatusCode.INVALID_ARGUMENT  # no other code is the server's alone
            detail = error.details() or ""
            if "shared memory" not in detail:
                raise
            if error.code() is grpc.StatusCode.NOT_FOUND:  # another process than the one that was told of it
                self._estrange(member, home, detail, is_another=True)
            return None
        finally:
            if is_answered:
                self._sharing.answered(lease)
            else:
                self._sharing.doubt(lease)
        try:
            return parcel.answer(data)
        except NotWritten as error:
            self._estrange(member, home, str(error))
            return None

    def _estrange(self, member: Member, home: Home, reason: str, *, is_another: bool = False) -> None:
        """It does not see what we see, whatever it was found to. `is_another`: server, which may; it is asked anew."""
        assert self._sharing
        if not home.reason:
            told = {"endpoint": member.endpoint.address, "version": self.title}
            logs.get().warning("shared memory fails", **told, reason=reason)
            self._sharing.leave(home, reason)
        if member.home is home:
            member.checked = -1
            if is_another:
                member.home = None

    async def _second_thought(self, member: Member, failure: Failure) -> Failure:
        """An input is refused through the caller's fault only where the model is still what it was."""
        if failure.code != Code.INVALID_ARGUMENT:
            return failure
        try:
            fault = await self._check(member)
        except grpc.aio.AioRpcError:
            return failure
        return self._changed(member.endpoint, fault) if fault else failure

    def _changed(self, endpoint: Endpoint, fault: str) -> Failure:
        text = f"{self.title}: Triton at {endpoint.address}: {fault}"
        return Failure(Blame.SERVER, Code.UNAVAILABLE, text, "", Outcome.FAILED)

    def _failure(self, error: grpc.aio.AioRpcError, endpoint: Endpoint, *, is_ours: bool) -> Failure:
        code: int = error.code().value[0]
        return blame.of_status(code, error.details() or "", self.title, endpoint.address, is_ours=is_ours)

    # --- what is known of the servers

    def doubt(self) -> None:
        """An answer was not what the signature promised: all are asked again what the model is, before the next."""
        for member in self._members.values():
            self._doubt(member)

    def _doubt(self, member: Member) -> bool:
        """False: it was in doubt a moment ago."""
        now_s = time.monotonic()
        if now_s - member.doubted_s < DOUBT_EVERY_S:
            return False
        member.doubted_s, member.checked = now_s, -1
        return True

    async def _check(self, member: Member) -> str:
        """What differs there, "" when nothing does; one question at a time, whoever wants to know. RpcError."""
        if member.checking is None:
            member.checking = asyncio.get_running_loop().create_task(self._compare(member))
        return await asyncio.shield(member.checking)

    async def _compare(self, member: Member) -> str:
        generation = member.link.generation
        timeout_s = max(PROBE_TIMEOUT_S, self.settings.connect_s)
        try:
            difference = self._described.difference(
                await member.link.describe(*self.names, self._wish, timeout_s, self._headers)
            )
            if difference:
                difference = f"its signature is not what it was at load: {difference}"
            else:
                difference = await self._meet(member, generation)
        except LoadError as error:
            difference = f"its signature is not what it was at load: {error}"
        finally:
            member.checking = None
        if not difference:
            member.checked = generation
            return ""
        now_s = time.monotonic()
        if member.endpoint in self._members:
            self.fleet.probed(member.endpoint, Sign.NOT_READY, difference, now_s, now_s)
        return difference

    async def _meet(self, member: Member, generation: int) -> str:
        """Whether it gets tensors by shared memory is known then. Why it cannot be asked at all."""
        sharing, home = self._sharing, member.home
        if sharing is None:
            return ""
        if home is None or home.generation != generation or home.is_due:
            if home:
                sharing.leave(home, home.reason or "the connection was lost")
            member.home = home = await sharing.meet(member.link, generation, member.endpoint.address, home)
        return f"triton.shared_memory is on, and {home.reason}" if sharing.is_demanded and home.reason else ""

    async def _ask(self, endpoint: Endpoint) -> tuple[Sign, str]:
        """For the prober."""
        sign, detail = await self._sign_of(endpoint)
        if sign is not Sign.READY:  # the fleet hears of it as this returns; why it is down may be news
            asyncio.get_running_loop().call_soon(self._look)
        return sign, detail

    async def _sign_of(self, endpoint: Endpoint) -> tuple[Sign, str]:
        member = self._member(endpoint)
        model, version = self.names
        try:
            if not await member.link.is_ready(model, version, PROBE_TIMEOUT_S, self._headers):
                return Sign.NOT_READY, f"model {model!r} version {version or 'any'} is not ready there"
            if not member.is_checked and (difference := await self._check(member)):
                return Sign.NOT_READY, difference
        except grpc.aio.AioRpcError as error:
            failure = self._failure(error, endpoint, is_ours=True)
            if failure.outcome is Outcome.LATE:
                return Sign.SILENT, "it does not answer"
            if failure.blame is Blame.NETWORK:
                return Sign.UNREACHABLE, f"it {blame.unreachable(failure.detail)}"
            return Sign.NOT_READY, failure.detail or failure.text
        return Sign.READY, ""

    def _moved(self, endpoint: Endpoint, before: State, after: State) -> None:
        log, fields = logs.get(), {"endpoint": endpoint.address, "before": before.value, "now": after.value}
        if after is State.READY:
            log.info("Triton server is asked", version=self.title, **fields)
        else:
            log.warning("Triton server is not asked as before", version=self.title, **fields, reason=endpoint.reason)
        if after is State.DOWN:
            if member := self._members.get(endpoint):
                member.checked = -1
            self.courier.drop(endpoint)
            self.sequences.drop(endpoint)
            for drop in [*self.on_down]:
                drop(endpoint)
        elif after is State.GONE:
            self._let_go(endpoint)
        self._count()
        self._look()

    def _count(self) -> None:
        """Whether there are more or fewer of them; what one that leaves still has keeps nobody else from working."""
        n_servers = len(self.fleet.endpoints) + len(self._leaving)
        if n_servers != self._n_servers and n_servers and not self._is_closed:
            self._n_servers = n_servers
            if self.on_in_flight:
                self.on_in_flight(self._in_flight_each * n_servers)

    def _look(self) -> None:
        """Whether there is anybody to ask."""
        alive = any(each.state in _USABLE for each in self.fleet.endpoints)
        state = "" if alive else f"none of its Triton servers is ready: {self.fleet.why_none()}"
        if state != self._state and self._may_tell and not self._is_closed:
            self._state = state
            self._on_state(state)

    # --- who belongs to it

    async def _begin(self) -> None:
        await self._prober.once()
        self._prober.start()
        self._may_tell = True  # who has not been asked yet is not down
        self._look()

    def _member(self, endpoint: Endpoint) -> Member:
        member = self._members.get(endpoint)
        if member is None:
            member = Member(endpoint, self._links.take(endpoint.address, self.settings))
            self._members[endpoint] = member
        return member

    def _let_go(self, endpoint: Endpoint) -> None:
        if member := self._members.pop(endpoint, None):
            task = asyncio.get_running_loop().create_task(self._see_out(member))
            self._leaving.add(task)
            task.add_done_callback(self._left)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._leaving.discard(task)
        self._count()

    async def _see_out(self, member: Member) -> None:
        while member.endpoint.outstanding or member.checking:  # noqa: ASYNC110 - the fleet tells nobody
            await asyncio.sleep(LEAVING_POLL_S)
        if self._sharing and member.home:
            self._sharing.leave(member.home, "its server left the fleet")
            await self._sharing.parted(member.link)
        self._links.give_back(member.link, self.settings)

    async def close(self) -> None:
        """Nothing is on its way any more."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._sharing:
            self._sharing.close()  # before anything is waited for: the process may be about to exit
        self._first_round.cancel()
        await self._prober.stop()
        if self._resolver:
            await self._resolver.stop()
        for task in [member.checking for member in self._members.values() if member.checking]:
            task.cancel()
        self._members, members = {}, [*self._members.values()]
        if self._sharing:
            await asyncio.gather(*(self._sharing.parted(member.link) for member in members))
        for member in members:
            self._links.give_back(member.link, self.settings)
