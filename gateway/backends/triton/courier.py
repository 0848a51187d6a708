"""Gets one request to some endpoint of the fleet and its answer back, in as many attempts as needed.

A second attempt goes out when the first one failed in a way that another endpoint may not share, or its endpoint was
found dead; and beside a first one that stays, when that one is later than usual (hedging) or has used most of the time
there is. The first right answer wins, and the others are cancelled on the wire. Owning loop only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
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
    rows: int
    began_s: float
    again: bool


@dataclass(slots=True)
class _Errand(Generic[A]):
    send: Send[A]
    rows: int
    deadline_s: float | None
    only: Endpoint | None
    tried: list[Endpoint] = field(default_factory=list)
    running: set[asyncio.Task[A]] = field(default_factory=set)


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
                task.cancel()

    async def carry(
        self, send: Send[A], rows: int, deadline_s: float | None = None, only: Endpoint | None = None
    ) -> tuple[Endpoint, A]:
        """Who answered, and what. `deadline_s` by the clock; `only`: there and nowhere else, and once. NobodyLeft,
        TooLate, or the cause of the last failure.
        """
        errand = _Errand(send, rows, deadline_s, only)
        beside_s = None if only else self._beside_s(self._clock(), deadline_s)
        if not self._begin(errand):
            raise NobodyLeft(self._fleet.why_none())
        try:
            while True:
                turns = [turn_s for turn_s in (beside_s, deadline_s) if turn_s is not None]
                timeout_s = max(min(turns) - self._clock(), 0.0) if turns else None
                done, _ = await asyncio.wait(errand.running, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
                failure: AttemptFailed | None = None
                for task in done:
                    errand.running.discard(task)
                    endpoint = self._out[task].endpoint
                    failure = self._settle(task)
                    if failure is None:
                        return endpoint, task.result()
                now_s = self._clock()
                if failure and failure.outcome is Outcome.REFUSED:
                    raise failure.cause
                if deadline_s is not None and now_s >= deadline_s:
                    raise TooLate(f"no answer in time from {', '.join(each.address for each in errand.tried)}")
                if beside_s is not None and now_s >= beside_s:
                    beside_s = None
                    self.hedged += self._begin_again(errand)
                if failure and not errand.running:
                    if not self._begin_again(errand, failure):
                        raise failure.cause
                    self.retried += 1
        finally:
            for task in errand.running:
                self._abandon(task)

    def _beside_s(self, began_s: float, deadline_s: float | None) -> float | None:
        """When a second attempt goes out beside the first. None: never."""
        turns = []
        if self._hedges and (usual_s := self._fleet.hedge_after_s()) is not None:
            turns.append(began_s + usual_s)
        if deadline_s is not None and deadline_s - began_s >= LATE_S:
            turns.append(began_s + IMPATIENT_SHARE * (deadline_s - began_s))
        return min(turns, default=None)

    # --- attempts

    def _begin(self, errand: _Errand[A]) -> bool:
        """The first. False: nobody may be asked."""
        endpoint = errand.only or self._fleet.pick(errand.rows, self._clock())
        if endpoint:
            self._ask(errand, endpoint)
        return endpoint is not None

    def _begin_again(self, errand: _Errand[A], failure: AttemptFailed | None = None) -> bool:
        """One more, if somebody is left to ask and the budget allows it. `failure`: how the one before ended."""
        now_s = self._clock()
        if errand.only or len(errand.tried) >= MOST_ATTEMPTS:
            return False
        endpoint = self._fleet.pick(errand.rows, now_s, errand.tried)
        if endpoint is None and failure and failure.outcome is Outcome.LOST and len(errand.tried) == 1:
            endpoint = self._fleet.pick(errand.rows, now_s)  # the same once more, over a new connection
        if endpoint is None or not self._fleet.may_retry(now_s):
            return False
        self._ask(errand, endpoint)
        return True

    def _ask(self, errand: _Errand[A], endpoint: Endpoint) -> None:
        now_s = self._clock()
        left_s = None if errand.deadline_s is None else max(errand.deadline_s - now_s, 0.0)
        task = asyncio.ensure_future(errand.send(endpoint, left_s))
        attempt = _Attempt(endpoint, errand.rows, now_s, again=bool(errand.tried))
        self._fleet.started(endpoint, errand.rows, now_s, again=attempt.again)
        self._out[task] = attempt
        errand.tried.append(endpoint)
        errand.running.add(task)

    def _settle(self, task: asyncio.Task[A]) -> AttemptFailed | None:
        """Tells the fleet how an attempt ended. None: with the answer."""
        attempt = self._out.pop(task)
        failure: AttemptFailed | None = None
        outcome = Outcome.OK
        if task.cancelled():  # by `drop`
            cause = NobodyLeft(f"{attempt.endpoint.address}: {attempt.endpoint.reason}")
            failure = AttemptFailed(Outcome.LOST, cause)
        elif error := task.exception():
            if not isinstance(error, AttemptFailed):
                self._tell(attempt, Outcome.CANCELLED)
                raise error
            failure = error
        if failure:
            outcome = failure.outcome
        self._tell(attempt, outcome)
        return failure

    def _abandon(self, task: asyncio.Task[A]) -> None:
        """Nobody waits for it any more."""
        attempt = self._out.pop(task)
        task.cancel()
        task.add_done_callback(_look_at)
        is_late = self._clock() - attempt.began_s > max(LATE_S, 3 * (self._fleet.hedge_after_s() or 0.0))
        self._tell(attempt, Outcome.LATE if is_late else Outcome.CANCELLED)

    def _tell(self, attempt: _Attempt, outcome: Outcome) -> None:
        now_s = self._clock()
        took_s = now_s - attempt.began_s
        self._fleet.ended(attempt.endpoint, attempt.rows, outcome, took_s, now_s, again=attempt.again)


def _look_at(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # asyncio complains about those that nobody looked at
