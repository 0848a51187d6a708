"""The tritonservers that serve one model: which of them is asked next, and what each answer says about them.

It knows no network and no clock. Who sends asks `pick`, tells `started` and `ended`; who probes asks `probes_due` and
tells `probed`. All from one thread.

Passive ejection (failures in a row, slower than its peers) compares endpoints, so it spares the last one. A probe that
finds a server not ready is evidence by itself, and takes out the last one too: then `pick` is None, `why_none` says
why, and callers learn it at once instead of waiting.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from random import Random

from gateway.backends.triton import balance
from gateway.backends.triton.budget import RetryBudget
from gateway.backends.triton.endpoint import FAILURES, Endpoint, Outcome, Sign, State
from gateway.backends.triton.latency import Quantile

Listener = Callable[[Endpoint, State, State], None]
"""(endpoint, from, to); the reason is in the endpoint."""

_SMOOTHING = 0.1
_TOGETHER_S = 2.0
"""Who becomes ready so soon after the others begins with them, and not behind them."""
_LIKE_THE_OTHERS = 0.5
"""An endpoint whose peers fail half as often as it does is no outlier: the model or its callers are at fault."""


@dataclass(frozen=True, slots=True)
class Rules:
    """When an endpoint is taken out and how it comes back."""

    failures: int = 5
    """In a row that eject."""
    lost: int = 1
    """Broken connections in a row that eject: the next attempt would only wait for the same."""
    slow_factor: float = 4.0
    """Times the median latency of its peers that ejects; 0: latency ejects nobody."""
    slow_least_s: float = 0.05
    """Slower than its peers by less than this ejects nobody."""
    slow_samples: int = 20
    ejected_s: float = 1.0
    """The first time; doubled each time in a row."""
    ejected_most_s: float = 30.0
    probation: int = 3
    """Right answers in a row that end it; one attempt at a time until then."""
    slow_start_s: float = 10.0
    probe_every_s: float = 1.0
    probe_soon_s: float = 0.2
    """Of those that are not READY, or under suspicion."""
    silent: int = 2
    """Probes without an answer in a row that take an endpoint out."""
    stalled_s: float = 0.5
    """Attempts on their way and nothing heard for so long: asked whether it lives."""


class Fleet:
    def __init__(
        self,
        addresses: Mapping[str, float] | Iterable[str],
        rules: Rules | None = None,
        *,
        now_s: float = 0.0,
        dice: Random | None = None,
        listener: Listener | None = None,
    ) -> None:
        """`addresses` as host:port, with weights or alike. Nobody is asked before its first probe."""
        self.rules = rules or Rules()
        self.budget = RetryBudget()
        self._dice = dice or Random()
        self._listener = listener
        self._members: dict[str, Endpoint] = {}
        self._durations = Quantile()
        self.set_members(addresses, now_s)

    # --- who belongs to it

    @property
    def endpoints(self) -> list[Endpoint]:
        return list(self._members.values())

    @property
    def ready(self) -> list[Endpoint]:
        return [endpoint for endpoint in self._members.values() if endpoint.state is State.READY]

    def set_members(self, addresses: Mapping[str, float] | Iterable[str], now_s: float) -> None:
        """The endpoints from now on. One that is no longer among them gets nothing new, and ends what it has."""
        wanted = dict(addresses) if isinstance(addresses, Mapping) else dict.fromkeys(addresses, 1.0)
        for address in [address for address in self._members if address not in wanted]:
            self._move(self._members.pop(address), State.GONE, "no longer in the list of endpoints", now_s)
        for address, weight in wanted.items():
            if endpoint := self._members.get(address):
                endpoint.weight = weight
            else:
                self._members[address] = Endpoint(address, weight, since_s=now_s)

    # --- who is asked

    def pick(self, rows: int, now_s: float, exclude: Collection[Endpoint] = ()) -> Endpoint | None:
        """Who gets the next rows; `exclude`: who has tried already. None: nobody is left, `why_none` says why."""
        usable, ejected = [], []
        for endpoint in self._members.values():
            if endpoint in exclude:
                continue
            self._release(endpoint, now_s)
            if endpoint.state is State.PROBATION:
                if not endpoint.outstanding:
                    return endpoint  # one attempt tells; budget and deadline protect who is in it
                ejected.append(endpoint)
            elif endpoint.state is State.READY:
                usable.append(endpoint)
            elif endpoint.state is State.EJECTED:
                ejected.append(endpoint)
        # Slow or shaky is better than nobody.
        return balance.choose(usable or ejected, rows, self.rules.slow_start_s, now_s, self._dice)

    def lasting(self, now_s: float) -> list[Endpoint]:
        """Who may be given what stays there: a sequence. On probation is enough, since what is begun there is what ends
        it; who was ejected is asked when there is nobody else.
        """
        for endpoint in [*self._members.values()]:
            self._release(endpoint, now_s)
        members = self._members.values()
        well = [each for each in members if each.state in (State.READY, State.PROBATION)]
        return well or [each for each in members if each.state is State.EJECTED]

    def why_none(self) -> str:
        """For the caller: what is the matter with each endpoint."""
        if not self._members:
            return "the list of endpoints is empty"
        return "; ".join(f"{each.address}: {each.reason or each.state.value}" for each in self._members.values())

    def started(self, endpoint: Endpoint, rows: int, now_s: float, *, again: bool = False) -> None:
        """An attempt is on its way; `again`: a retry or a hedge."""
        if not endpoint.outstanding:
            endpoint.answered_s = max(endpoint.answered_s, now_s)  # silence counts from here
        endpoint.outstanding += 1
        endpoint.outstanding_rows += rows
        if again:
            endpoint.counts.again += 1
        else:
            endpoint.counts.first += 1
            self.budget.first(now_s)

    def ended(
        self, endpoint: Endpoint, rows: int, outcome: Outcome, took_s: float, now_s: float, *, again: bool = False
    ) -> None:
        """Once for each `started`."""
        endpoint.outstanding -= 1
        endpoint.outstanding_rows -= rows
        counts = endpoint.counts
        counts.outcomes[outcome] += 1
        if outcome is Outcome.CANCELLED:
            return
        failed = outcome in FAILURES
        endpoint.failing += _SMOOTHING * (failed - endpoint.failing)
        if outcome is not Outcome.LOST and outcome is not Outcome.LATE:
            endpoint.answered_s = now_s
            endpoint.silent = 0
        if failed:
            counts.first_failed += not again
            counts.again_failed += again
            self._failed(endpoint, outcome, now_s)
        else:
            self._answered(endpoint, outcome, took_s, now_s)

    # --- second attempts

    def may_retry(self, now_s: float) -> bool:
        """Takes one from the budget."""
        return self.budget.take(now_s)

    def hedge_after_s(self) -> float | None:
        """The 95th percentile of what right answers took of late; None: too few yet."""
        return self._durations.value_s

    # --- probes

    def probes_due(self, now_s: float) -> list[Endpoint]:
        """Who is to be asked now whether it is ready. Each is in the list once: the next time is set here."""
        due = []
        for endpoint in self._members.values():
            is_stalled = endpoint.outstanding and now_s - endpoint.answered_s >= self.rules.stalled_s
            doubtful = endpoint.state is not State.READY or endpoint.silent or endpoint.failures or is_stalled
            every_s = self.rules.probe_soon_s if doubtful else self.rules.probe_every_s
            if now_s - endpoint.asked_s >= every_s:
                endpoint.asked_s = now_s
                due.append(endpoint)
        return due

    def probed(self, endpoint: Endpoint, sign: Sign, detail: str, asked_s: float, now_s: float) -> None:
        """What a probe found; `detail` says it in words for the log and the caller."""
        if endpoint.state is State.GONE:
            return
        if sign is Sign.READY:
            endpoint.silent = 0
            endpoint.answered_s = max(endpoint.answered_s, asked_s)
            if endpoint.state is State.STARTING:
                if any(now_s - other.since_s > _TOGETHER_S for other in self.ready):
                    endpoint.ramp_from_s = now_s
                self._move(endpoint, State.READY, "", now_s)
            elif endpoint.state is State.DOWN:
                endpoint.successes = 0
                self._move(endpoint, State.PROBATION, "on probation: it is ready again", now_s)
            return
        if sign is Sign.SILENT:
            if endpoint.answered_s > asked_s:  # it answered others meanwhile: busy, not dead
                return
            endpoint.silent += 1
            if endpoint.silent < self.rules.silent and endpoint.state is not State.STARTING:
                return
        if endpoint.state is State.DOWN:
            endpoint.reason = detail
        else:
            self._granted(endpoint, now_s)
            self._move(endpoint, State.DOWN, detail, now_s)

    # --- what answers say

    def _answered(self, endpoint: Endpoint, outcome: Outcome, took_s: float, now_s: float) -> None:
        endpoint.failures = 0
        endpoint.successes += 1
        if outcome is Outcome.OK:
            self._durations.add(took_s)
            step = max(_SMOOTHING, 1.0 / (endpoint.latency_samples + 1))
            endpoint.latency_s += step * (took_s - endpoint.latency_s)
            endpoint.latency_samples += 1
        if endpoint.state is State.PROBATION and endpoint.successes >= self.rules.probation:
            endpoint.ramp_from_s = now_s
            endpoint.latency_s, endpoint.latency_samples = 0.0, 0
            self._move(endpoint, State.READY, "", now_s)
        elif endpoint.state is State.READY:
            if now_s - endpoint.since_s > self.rules.ejected_most_s:
                endpoint.ejected_in_a_row = 0
            if slow := self._is_slow(endpoint):
                self._eject(endpoint, slow, now_s)

    def _failed(self, endpoint: Endpoint, outcome: Outcome, now_s: float) -> None:
        endpoint.failures += 1
        endpoint.successes = 0
        if outcome is Outcome.LOST and endpoint.failures == 1:
            self._granted(endpoint, now_s)
        if endpoint.state is State.PROBATION:
            self._eject(endpoint, f"{outcome.value} on probation", now_s)
        elif endpoint.state is State.READY:
            enough = self.rules.lost if outcome is Outcome.LOST else self.rules.failures
            if endpoint.failures >= enough and (outcome is Outcome.LOST or self._is_worse(endpoint)):
                times = "" if endpoint.failures == 1 else f" {endpoint.failures} times in a row"
                self._eject(endpoint, f"{outcome.value}{times}", now_s)

    def _eject(self, endpoint: Endpoint, reason: str, now_s: float) -> None:
        if endpoint.state is State.READY and not any(other is not endpoint for other in self.ready):
            return  # never the last one
        lasts_s = min(self.rules.ejected_s * 2.0**endpoint.ejected_in_a_row, self.rules.ejected_most_s)
        endpoint.ejected_until_s = now_s + lasts_s
        endpoint.ejected_in_a_row += 1
        endpoint.counts.ejections += 1
        endpoint.latency_s, endpoint.latency_samples = 0.0, 0
        self._move(endpoint, State.EJECTED, f"{reason}; left alone for {lasts_s:g} s", now_s)

    def _release(self, endpoint: Endpoint, now_s: float) -> None:
        if endpoint.state is State.EJECTED and now_s >= endpoint.ejected_until_s:
            self._move(endpoint, State.PROBATION, "on probation after its ejection", now_s)
            endpoint.successes = 0

    def _granted(self, endpoint: Endpoint, now_s: float) -> None:
        """It dies: what is on its way there may go elsewhere."""
        self.budget.grant(endpoint.outstanding + 1, now_s)

    def _is_worse(self, endpoint: Endpoint) -> bool:
        others = [other.failing for other in self.ready if other is not endpoint]
        return bool(others) and statistics.fmean(others) < _LIKE_THE_OTHERS * endpoint.failing

    def _is_slow(self, endpoint: Endpoint) -> str:
        """Why it is an outlier; empty: it is none."""
        rules = self.rules
        if not rules.slow_factor or endpoint.latency_samples < rules.slow_samples:
            return ""
        others = [
            other.latency_s
            for other in self.ready
            if other is not endpoint and other.latency_samples >= rules.slow_samples
        ]
        if not others:
            return ""
        usual_s = statistics.median(others)
        if endpoint.latency_s < max(rules.slow_factor * usual_s, usual_s + rules.slow_least_s):
            return ""
        return f"slow: {endpoint.latency_s * 1e3:.0f} ms an answer, its peers {usual_s * 1e3:.0f} ms"

    def _move(self, endpoint: Endpoint, state: State, reason: str, now_s: float) -> None:
        before = endpoint.state
        endpoint.move(state, reason, now_s)
        if self._listener:
            self._listener(endpoint, before, state)
