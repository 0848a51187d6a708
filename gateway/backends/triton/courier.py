"""Gets one request to some endpoint of the fleet and its answer back: once for the caller, in as many attempts as needed.

A second attempt goes out when the first one failed in a way that another endpoint may not share, or its endpoint was
found dead; and beside a first one that stays, when that one is later than usual (hedging) or has used most of the time
there is. The first right answer wins, and the others are cancelled on the wire. Owning loop only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from gateway.backends.triton.endpoint import Endpoint, Outcome
from gateway.backends.triton.fleet import Fleet

A = TypeVar("A")
Send = Callable[[Endpoint, float | None], Coroutine[Any, Any, A]]
"""(endpoint, seconds left or None) -> its answer; AttemptFailed. Cancelling it cancels the call on the wire."""

MOST_ATTEMPTS = 4
IMPATIENT_SHARE = 0.6
"""Of the time there was, after which a second attempt goes out beside the first: its endpoint may hang."""
LATE_S = 0.1
"""Whose caller gives up sooner than this says nothing about the endpoint."""


class AttemptFailed(Exception):
    """How one attempt ended, and what the caller hears if no other helps."""

    def __init__(self, outcome: Outcome, cause: Exception) -> None:
        super().__init__(outcome, cause)
        self.outcome, self.cause = outcome, cause


class NobodyLeft(Exception):
    """No endpoint may be asked; the text says what is the matter with each."""


class TooLate(Exception):
    """The deadline passed with an attempt on its way; the text says where."""


@dataclass(slots=True, eq=False)
class _Attempt:
    endpoint: Endpoint
    began_s: float
    again: bool
    is_dropped: bool = False


class Courier(Generic[A]):
    """`drop` is to be called with each endpoint that comes DOWN: what is on its way there goes elsewhere."""

    def __init__(self, fleet: Fleet, clock: Callable[[], float], *, hedges: bool = False) -> None:
        self._fleet, self._clock, self._hedges = fleet, clock, hedges
        self._out: dict[asyncio.Task[A], _Attempt] = {}
        self.retried = 0
        """Attempts after a failed one, since the start."""
        self.hedged = 0
        """Attempts beside a living one, since the start."""

    def drop(self, endpoint: Endpoint) -> None:
        for task, attempt in self._out.items():
            if attempt.endpoint is endpoint:
                attempt.is_dropped = True
                task.cancel()

    async def carry(self, send: Send[A], rows: int, deadline_s: float | None = None) -> tuple[Endpoint, A]:
        """Who answered, and what. `deadline_s` by the clock. NobodyLeft, TooLate, or the cause of the last failure."""
        began_s = self._clock()
        beside_s = self._beside_s(began_s, deadline_s)
        tried: list[Endpoint] = []
        running: set[asyncio.Task[A]] = set()
        try:
            if not self._begin(send, rows, deadline_s, tried, running, again=False):
                raise NobodyLeft(self._fleet.why_none())
            while True:
                turns = [turn_s for turn_s in (beside_s, deadline_s) if turn_s is not None]
                timeout_s = max(min(turns) - self._clock(), 0.0) if turns else None
                done, _ = await asyncio.wait(running, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
                failure: Exception | None = None
                for task in done:
                    endpoint = self._out[task].endpoint
                    running.discard(task)
                    failure = self._settle(task, rows)
                    if failure is None:
                        return endpoint, task.result()
                now_s = self._clock()
                if deadline_s is not None and now_s >= deadline_s:
                    raise TooLate(f"no answer from {', '.join(endpoint.address for endpoint in tried)} in time")
                if beside_s is not None and now_s >= beside_s:
                    beside_s = None
                    self.hedged += self._again(send, rows, deadline_s, tried, running)
                if not running:
                    assert failure is not None
                    once_more = isinstance(failure, AttemptFailed) and failure.outcome is Outcome.LOST
                    if not _may_help(failure) or not self._again(
                        send, rows, deadline_s, tried, running, once_more=once_more
                    ):
                        raise failure.cause if isinstance(failure, AttemptFailed) else failure
                    self.retried += 1
        finally:
            for task in running:
                self._abandon(task, rows)

    def _beside_s(self, began_s: float, deadline_s: float | None) -> float | None:
        """When a second attempt goes out beside the first. None: never."""
        turns = []
        if self._hedges and (usual_s := self._fleet.hedge_after_s()) is not None:
            turns.append(began_s + usual_s)
        if deadline_s is not None and deadline_s - began_s >= LATE_S:
            turns.append(began_s + IMPATIENT_SHARE * (deadline_s - began_s))
        return min(turns, default=None)

    # --- attempts

    def _begin(
        self,
        send: Send[A],
        rows: int,
        deadline_s: float | None,
        tried: list[Endpoint],
        running: set[asyncio.Task[A]],
        *,
        again: bool,
        once_more: bool = False,
    ) -> bool:
        """`once_more`: with nobody else left, one that was tried may be asked again, over a new connection."""
        now_s = self._clock()
        endpoint = self._fleet.pick(rows, now_s, tried)
        if endpoint is None and once_more and tried.count(tried[-1]) < 2:
            endpoint = self._fleet.pick(rows, now_s)
        if endpoint is None or (again and not self._fleet.may_retry(now_s)):
            return False
        tried.append(endpoint)
        left_s = None if deadline_s is None else max(deadline_s - now_s, 0.0)
        task = asyncio.ensure_future(send(endpoint, left_s))
        self._fleet.started(endpoint, rows, now_s, again=again)
        self._out[task] = _Attempt(endpoint, now_s, again)
        running.add(task)
        return True

    def _again(
        self,
        send: Send[A],
        rows: int,
        deadline_s: float | None,
        tried: list[Endpoint],
        running: set[asyncio.Task[A]],
        *,
        once_more: bool = False,
    ) -> bool:
        """One more, if somebody is left to ask and the budget allows it."""
        return len(tried) < MOST_ATTEMPTS and self._begin(
            send, rows, deadline_s, tried, running, again=True, once_more=once_more
        )

    def _settle(self, task: asyncio.Task[A], rows: int) -> Exception | None:
        """Tells the fleet how an attempt ended. None: it is the answer."""
        attempt = self._out.pop(task)
        failure: Exception | None
        if task.cancelled():
            cause = NobodyLeft(f"{attempt.endpoint.address}: {attempt.endpoint.reason}")
            failure = AttemptFailed(Outcome.LOST, cause)
        else:
            failure = task.exception()  # type: ignore[assignment]
        if failure is None:
            outcome = Outcome.OK
        else:
            outcome = failure.outcome if isinstance(failure, AttemptFailed) else Outcome.CANCELLED
        self._tell(attempt, rows, outcome)
        return failure

    def _abandon(self, task: asyncio.Task[A], rows: int) -> None:
        """Nobody waits for it any more."""
        attempt = self._out.pop(task)
        task.cancel()
        task.add_done_callback(_retrieved)
        waited_s = self._clock() - attempt.began_s
        usual_s = self._fleet.hedge_after_s() or 0.0
        is_late = waited_s > max(LATE_S, 3 * usual_s)
        self._tell(attempt, rows, Outcome.LATE if is_late else Outcome.CANCELLED)

    def _tell(self, attempt: _Attempt, rows: int, outcome: Outcome) -> None:
        now_s = self._clock()
        took_s = now_s - attempt.began_s
        self._fleet.ended(attempt.endpoint, rows, outcome, took_s, now_s, again=attempt.again)


def _may_help(failure: Exception) -> bool:
    """Another endpoint may give a better answer."""
    return isinstance(failure, AttemptFailed) and failure.outcome is not Outcome.REFUSED


def _retrieved(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # asyncio complains about those that nobody looked at
