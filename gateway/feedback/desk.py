"""Where reports are handed in: checked, and written by one thread, many at a time.

While one transaction is under way the next reports gather, so that a thousand callers with a report each cost the store
no more than one with a thousand. Whoever handed in is told when it is kept. What the store does not take is refused as
a whole, and may be sent again: a report counts once.
"""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.errors import GatewayError, InvalidArgument, Unavailable
from gateway.feedback import tally
from gateway.feedback.report import MAX_REPORTS, Fact, Report, Result, Status, read
from gateway.observability import logs

if TYPE_CHECKING:
    from gateway.store import Store

MAX_BATCH = 2_000
"""Reports in one transaction; more would keep others from the store for long."""
MAX_WAITING = 50_000
"""Reports in memory: 30 MB, and more than the store writes in ten seconds."""
CLOSE_PATIENCE_S = 2.0

Told = Callable[["list[Result] | GatewayError"], None]


@dataclass(frozen=True, slots=True)
class _Entry:
    reports: Sequence[Report]
    told: Told


class Desk:
    """`store()` gives the store, or raises Unavailable. Any thread."""

    def __init__(self, store: Callable[[], Store], now: Callable[[], float] = time.time) -> None:
        self._store, self._now = store, now
        self._key: bytes | None = None
        self._waiting: deque[_Entry] = deque()
        self._n_waiting = 0
        self._has_work = threading.Condition()
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def take(self, reports: Sequence[Report], told: Told) -> None:
        """`told(results)` is called in the desk's thread, once: a result for each, in order, or the error for which
        none was kept. InvalidArgument: too many at once. Unavailable: too many wait already, or it is closing.
        """
        if len(reports) > MAX_REPORTS:
            raise InvalidArgument(f"reports: got {len(reports)}, expected {MAX_REPORTS} at most in one call")
        with self._has_work:
            if self._is_closed:
                raise Unavailable("the gateway is shutting down")
            if self._n_waiting + len(reports) > MAX_WAITING:
                raise Unavailable(f"reports: {self._n_waiting} wait for the store already; send these again later")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="feedback", daemon=True)
                self._thread.start()
            self._waiting.append(_Entry(reports, told))
            self._n_waiting += len(reports)
            self._has_work.notify()

    def ask(self, reports: Sequence[Report], patience_s: float = 10.0) -> list[Result]:
        """`take`, and wait. Unavailable: not within that time; they may be kept all the same."""
        answer: concurrent.futures.Future[list[Result]] = concurrent.futures.Future()
        self.take(reports, lambda told: settle(answer, told))
        try:
            return answer.result(patience_s)
        except concurrent.futures.TimeoutError:
            raise Unavailable(f"the store did not take the reports within {patience_s:g} s; send them again") from None

    def close(self) -> None:
        """What waits is still written."""
        with self._has_work:
            self._is_closed = True
            self._has_work.notify()
        if self._thread:
            self._thread.join(CLOSE_PATIENCE_S)

    # --- the thread

    def _run(self) -> None:
        while entries := self._next():
            try:
                answers: Sequence[list[Result]] | GatewayError = self._write(entries)
            except GatewayError as error:
                answers = error
            except Exception as error:
                logs.get().exception("feedback cannot be written", error=str(error))
                answers = Unavailable("the gateway failed on these reports; its log says more")
            for index, entry in enumerate(entries):
                try:
                    entry.told(answers if isinstance(answers, GatewayError) else answers[index])
                except Exception as error:
                    logs.get().exception("feedback cannot be answered", error=str(error))

    def _next(self) -> list[_Entry]:
        with self._has_work:
            while not self._waiting and not self._is_closed:
                self._has_work.wait()
            entries: list[_Entry] = []
            n = 0
            while self._waiting and (not entries or n + len(self._waiting[0].reports) <= MAX_BATCH):
                entries.append(self._waiting.popleft())
                n += len(entries[-1].reports)
            self._n_waiting -= n
            return entries

    def _write(self, entries: Sequence[_Entry]) -> list[list[Result]]:
        store = self._store()
        if self._key is None:
            self._key = store.feedback_key()
        now_s = self._now()
        read_all = [read(report, self._key, now_s) for entry in entries for report in entry.reports]
        facts: dict[tuple[bytes, int, str, str], Fact] = {}
        first: list[list[Fact]] = []
        """By report, its facts that no earlier report here had."""
        for found in read_all:
            fresh = [fact for fact in found if fact.key not in facts] if isinstance(found, list) else []
            facts.update((fact.key, fact) for fact in fresh)
            first.append(fresh)
        results: list[Result] = []

        def count(new: Collection[tuple[bytes, int, str, str]]) -> tally.Tallies:
            tallies = tally.of_facts(facts[key] for key in new)
            results.clear()
            for found, fresh in zip(read_all, first, strict=True):
                if isinstance(found, Result):
                    tally.count_outcome(tallies, "", "", found.status, now_s)
                    results.append(found)
                    continue
                status = Status.ACCEPTED if any(fact.key in new for fact in fresh) else Status.DUPLICATE
                tally.count_outcome(tallies, found[0].model, found[0].answered, status, now_s)
                results.append(Result(status))
            return tallies

        if read_all:
            store.put_feedback([*facts.values()], count)
        answers, at = [], 0
        for entry in entries:
            answers.append(results[at : at + len(entry.reports)])
            at += len(entry.reports)
        return answers


def settle(answer: concurrent.futures.Future[list[Result]], told: list[Result] | GatewayError) -> None:
    if answer.cancelled():
        return
    if isinstance(told, GatewayError):
        answer.set_exception(told)
    else:
        answer.set_result(told)
