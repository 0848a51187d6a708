"""The slow twin of native.lane: the same rules over plain lists, for comparison. Times in microseconds."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.support.lanes import DEADLINE_EXCEEDED, INTERNAL, OK, RESOURCE_EXHAUSTED

MARGIN_US = 1_000


@dataclass
class SlowCost:
    """c + a * rows by least squares over decayed sums; see ext/gateway/native/cost.pxd."""

    seen: list[tuple[float, float]] = field(default_factory=list)  # (rows, us after clipping), oldest first
    trust: float = 0.0

    def sums(self) -> tuple[float, float, float, float, float]:
        weight = rows = us = rows_rows = rows_us = 0.0
        for n, cost_us in self.seen:
            weight = weight * 0.98 + 1
            rows = rows * 0.98 + n
            us = us * 0.98 + cost_us
            rows_rows = rows_rows * 0.98 + n * n
            rows_us = rows_us * 0.98 + n * cost_us
        return weight, rows, us, rows_rows, rows_us

    def predict_us(self, n: float) -> float:
        weight, rows, us, rows_rows, rows_us = self.sums()
        if not weight:
            return 0.0
        mean_rows, mean_us = rows / weight, us / weight
        variance = rows_rows / weight - mean_rows * mean_rows
        if variance > 0.01 * mean_rows * mean_rows:
            slope = max(0.0, (rows_us / weight - mean_rows * mean_us) / variance)
        else:
            slope = 0.5 * mean_us / mean_rows if mean_rows > 0 else 0.0
        return max(0.0, mean_us + slope * (n - mean_rows))

    def observe(self, n: float, us: float) -> None:
        expected = self.predict_us(n)
        if us >= expected:
            self.trust = 1.0
        elif us > expected * self.trust:
            self.trust = us / expected
        self.seen.append((n, min(us, expected * 3.0 + 20.0) if self.seen else us))


@dataclass
class SlowLinger:
    """Who of those answered is about to ask again; see ext/gateway/native/linger.pxd."""

    batches: list[list[int]] = field(default_factory=list)  # [answered, back, lateness summed], oldest first
    owed: float = 0.0
    answered_us: int = 0
    until_us: int = 0
    held_until_us: int = 0

    def sums(self) -> tuple[float, float, float]:
        answered = back = late_us = 0.0
        for batch in self.batches:
            answered = answered * 0.875 + batch[0]
            back = back * 0.875 + batch[1]
            late_us = late_us * 0.875 + batch[2]
        return answered, back, late_us

    def arrived(self, now_us: int) -> None:
        if now_us <= self.until_us:
            self.batches[-1][1] += 1
            self.batches[-1][2] += now_us - self.answered_us
            self.owed = max(0.0, self.owed - 1)

    def answered(self, n: int, fixed_us: float, now_us: int) -> None:
        if n <= 0:
            return
        answered, back, _ = self.sums()
        if now_us >= self.until_us:
            self.owed = 0.0
        else:
            self.owed *= (self.until_us - now_us) / (self.until_us - self.answered_us)
        self.owed += n * min(1.0, back / answered if answered else 0.0)
        self.batches.append([n, 0, 0])
        self.answered_us, self.until_us = now_us, now_us + int(2 * fixed_us)

    def hold_until_us(self, queued: int, everybody: int, instances: int, fixed_us: float, now_us: int) -> int:
        """0: not at all."""
        held, self.held_until_us = self.held_until_us, 0
        if now_us > self.until_us:
            self.owed = 0.0
        expected = int(self.owed + 0.5)
        if expected < 1 or queued >= (everybody + expected) / instances:
            return 0
        if not held:
            _, back, late_us = self.sums()
            span_us = min(0.5 * fixed_us, 5_000.0)
            if span_us < 50 or self.owed * fixed_us <= queued * (2 * late_us / back - (now_us - self.answered_us)):
                return 0
            held = min(now_us + int(span_us), self.until_us)
        if now_us < held:
            self.held_until_us = held
        return self.held_until_us


@dataclass(eq=False)
class SlowRequest:
    """One request; `values` identifies its rows."""

    values: list[float]
    width: int
    priority: int
    timeout_us: int
    nbytes: int
    arrived_us: int = 0
    deadline_us: int = 0
    taken: int = 0
    done: int = 0
    is_started: bool = False
    outcome: int | str | None = None  # gRPC code, "cancelled" or "never came"

    @property
    def left(self) -> int:
        return len(self.values) - self.taken


@dataclass
class SlowBatch:
    members: list[tuple[SlowRequest, int, int]]  # first row, rows
    reason: str

    @property
    def n_rows(self) -> int:
        return sum(rows for _, _, rows in self.members)


@dataclass
class SlowLane:
    """One lane of a batched model that never runs inline."""

    cap: int
    max_batch_bytes: int
    max_delay_us: int
    instances: int
    max_queue_rows: int
    max_queue_bytes: int
    is_variable: bool
    lingers: bool = False
    cost: SlowCost = field(default_factory=SlowCost)
    linger: SlowLinger = field(default_factory=SlowLinger)
    inbox: list[SlowRequest] = field(default_factory=list)
    queue: list[SlowRequest] = field(default_factory=list)  # in order of priority, then arrival
    running: list[SlowBatch] = field(default_factory=list)
    alive: list[SlowRequest] = field(default_factory=list)
    requests: dict[int, int] = field(default_factory=dict)
    releases: dict[str, int] = field(default_factory=lambda: dict.fromkeys(["full", "idle", "delay", "deadline"], 0))
    cancelled: int = 0
    rows: int = 0
    queue_us: int = 0
    refused_rows: int = 0
    refused_bytes: int = 0

    @property
    def queued_rows(self) -> int:
        return sum(max(request.left, 1) for request in self.queue)

    @property
    def queued_bytes(self) -> int:
        return sum(request.nbytes for request in self.queue)

    def turn(self, now_us: int) -> list[SlowBatch]:
        """Admits, expires, forms; returns the batches that are new."""
        inbox, self.inbox = self.inbox, []
        for request in inbox:
            self._admit(request, now_us)
        for request in list(self.alive):
            if request.deadline_us and request.deadline_us <= now_us:
                self._settle(request, DEADLINE_EXCEEDED)
        formed = []
        while self.queue and len(self.running) < self.instances:
            reason = self._decide(now_us)
            if reason is None:
                break
            batch = self._form(now_us, reason)
            if batch is not None:
                formed.append(batch)
                self.running.append(batch)
                self.releases[batch.reason] += 1
                self.rows += batch.n_rows
        return formed

    def cancel(self, request: SlowRequest) -> None:
        if request in self.inbox:
            self.inbox.remove(request)
            request.outcome = "never came"
        elif request.outcome is None:
            self.cancelled += 1
            self._settle(request, "cancelled")

    def run(self, batch: SlowBatch, poison: set[float]) -> list[list[float]]:
        """What the model is called with, halving included."""
        runs = []

        def halve(members: list[tuple[SlowRequest, int, int]]) -> None:
            rows = [value for request, first, n in members for value in request.values[first : first + n]]
            runs.append(rows)
            if poison.intersection(rows) and len(members) > 1:
                halve(members[: len(members) // 2])
                halve(members[len(members) // 2 :])

        halve(batch.members)
        return runs

    def complete(self, batch: SlowBatch, poison: set[float], cost_us: int, now_us: int) -> None:
        self.running.remove(batch)
        is_poisoned = False
        n_alive = len(self.alive)
        for request, first, n in batch.members:
            if poison.intersection(request.values[first : first + n]):
                is_poisoned = True
                self._settle(request, INTERNAL)
            elif request.outcome is None:
                request.done += n
                if request.done == len(request.values):
                    self._settle(request, OK)
        if not is_poisoned and cost_us:
            self.cost.observe(max(batch.n_rows, 1), cost_us)
        self.linger.answered(n_alive - len(self.alive), self.cost.predict_us(0), now_us)

    def _admit(self, request: SlowRequest, now_us: int) -> None:
        if self.queued_rows + max(len(request.values), 1) > self.max_queue_rows:
            self.refused_rows += 1
            self._settle(request, RESOURCE_EXHAUSTED)
        elif self.queued_bytes + request.nbytes > self.max_queue_bytes:
            self.refused_bytes += 1
            self._settle(request, RESOURCE_EXHAUSTED)
        else:
            request.arrived_us = now_us
            request.deadline_us = now_us + request.timeout_us if request.timeout_us else 0
            self.linger.arrived(now_us)
            self.alive.append(request)
            self.queue.append(request)
            self.queue.sort(key=lambda queued: queued.priority)  # stable

    def _decide(self, now_us: int) -> str | None:
        head = self.queue[0]
        if self.is_variable:
            rows = sum(request.left for request in self.queue if request.width == head.width)
        else:
            rows = self.queued_rows
        if not self.max_delay_us:
            if not self.lingers or self.is_variable or self.cap == 1 or rows >= self.cap:
                return "idle"
            fixed_us = self.cost.predict_us(0)
            if not self.linger.hold_until_us(len(self.queue), len(self.alive), self.instances, fixed_us, now_us):
                return "idle"
            return self._near_deadline(rows, now_us)
        if rows >= self.cap:
            return "full"
        if now_us >= min(request.arrived_us for request in self.queue) + self.max_delay_us:
            return "delay"
        return self._near_deadline(rows, now_us)

    def _near_deadline(self, rows: int, now_us: int) -> str | None:
        deadlines = [request.deadline_us for request in self.queue if request.deadline_us]
        if deadlines and now_us >= min(deadlines) - int(self.cost.predict_us(min(rows + 1, self.cap))) - MARGIN_US:
            return "deadline"
        return None

    def _form(self, now_us: int, reason: str) -> SlowBatch | None:
        batch = SlowBatch([], reason)
        nbytes = 0
        for request in list(self.queue):
            if request.deadline_us:
                needed_us = int(self.cost.predict_us(request.left) * self.cost.trust)
                if request.deadline_us <= now_us + needed_us:
                    self.cost.trust *= 0.95
                    self._settle(request, DEADLINE_EXCEEDED)
                    continue
            if batch.members:
                if request.width != batch.members[0][0].width:
                    continue
                if nbytes + request.nbytes > self.max_batch_bytes or batch.n_rows + request.left > self.cap:
                    batch.reason = "full"
                    return batch
            take = min(request.left, self.cap)
            if not request.is_started:
                request.is_started = True
                self.queue_us += now_us - request.arrived_us
            batch.members.append((request, request.taken, take))
            nbytes += request.nbytes if take == len(request.values) else request.nbytes * take // len(request.values)
            request.taken += take
            if not request.left:
                self.queue.remove(request)
            if batch.n_rows >= self.cap:
                batch.reason = "full"
                return batch
        return batch if batch.members else None

    def _settle(self, request: SlowRequest, outcome: int | str) -> None:
        if request.outcome is not None:
            return
        request.outcome = outcome
        if request in self.queue:
            self.queue.remove(request)
        if request in self.alive:
            self.alive.remove(request)
        if isinstance(outcome, int):
            self.requests[outcome] = self.requests.get(outcome, 0) + 1
