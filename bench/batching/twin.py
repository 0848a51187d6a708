"""`python -m bench.batching --twin`: eager and the fixed settings in a simulation of lane, loop, executors and callers.

What a busy machine cannot say: which batches form when callers in a closed loop ask again as soon as they are answered.
Generator, loop and executors are threads that share the cores evenly; answers and requests travel in one piece for each
connection; a run costs what it costs the larger MLP. The rule is linger.pxd's, said in Python.
"""

from __future__ import annotations

import heapq
import itertools
import random
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

COST_US = ((1, 330), (4, 383), (8, 450), (16, 580), (32, 980), (64, 1750), (128, 3600), (256, 7400))
"""A run of so many rows of the larger MLP, one thread, on a busy machine; between them a straight line."""
FIXED_US = 300.0  # what a lane learns of it as the cost of a run without rows


@dataclass(frozen=True, slots=True)
class World:
    """Callers and machine. Microseconds: of the generator, of reading and of answering a request on the loop."""

    connections: int
    streams: int
    cores: int = 2
    instances: int = 2
    asking_us: float = 3.0
    reading_us: float = 2.5
    answering_us: float = 2.0
    piece_us: float = 5.0  # of a connection's piece, on either side
    hop_us: float = 25.0  # to a thread that sleeps
    simulated_us: float = 250_000.0
    warmup_us: float = 100_000.0


@dataclass(slots=True)
class Eager:
    """linger.pxd: an idle executor waits for its share of those who are about to ask again."""

    answered_sum: float = 0.0
    back: float = 0.0
    late_us: float = 0.0
    owed: float = 0.0
    answered_us: float = 0.0
    until_us: float = -1.0
    held_until_us: float = 0.0

    def arrived(self, n: int, now_us: float) -> None:
        if now_us <= self.until_us:
            self.back += n
            self.late_us += n * (now_us - self.answered_us)
            self.owed = max(0.0, self.owed - n)

    def answered(self, n: int, now_us: float) -> None:
        share = min(1.0, self.back / self.answered_sum) if self.answered_sum else 0.0
        if now_us >= self.until_us:
            self.owed = 0.0
        else:
            self.owed *= (self.until_us - now_us) / (self.until_us - self.answered_us)
        self.owed += n * share
        self.answered_sum = self.answered_sum * 0.875 + n
        self.back *= 0.875
        self.late_us *= 0.875
        self.answered_us, self.until_us = now_us, now_us + 2 * FIXED_US

    def hold_until_us(self, queued: int, everybody: int, instances: int, now_us: float, oldest_us: float) -> float:
        held, self.held_until_us = self.held_until_us, 0.0
        if now_us > self.until_us:
            self.owed = 0.0
        expected = int(self.owed + 0.5)
        if expected < 1 or queued * instances >= everybody + expected:
            return 0.0
        if not held:
            left_us = 2 * self.late_us / self.back - (now_us - self.answered_us)
            if self.owed * FIXED_US <= queued * left_us:
                return 0.0
            held = min(now_us + 0.5 * FIXED_US, self.until_us)
        if now_us < held:
            self.held_until_us = held
        return self.held_until_us

    def share(self, queued: int, idle: int) -> int:
        return 256


@dataclass(slots=True)
class Fixed:
    """A batch size and a delay, as other servers have them; no delay and no size worth the name: blindly eager."""

    rows: int
    delay_us: float

    def arrived(self, n: int, now_us: float) -> None: ...

    def answered(self, n: int, now_us: float) -> None: ...

    def hold_until_us(self, queued: int, everybody: int, instances: int, now_us: float, oldest_us: float) -> float:
        due_us = oldest_us + self.delay_us
        return 0.0 if queued >= self.rows or now_us >= due_us else due_us

    def share(self, queued: int, idle: int) -> int:
        return self.rows


def cost_us(rows: int) -> float:
    place = min(max(bisect_left(COST_US, (rows, 0)), 1), len(COST_US) - 1)
    (x, y), (x2, y2) = COST_US[place - 1], COST_US[place]
    return y + (y2 - y) * (rows - x) / (x2 - x)


@dataclass(slots=True)
class Simulation:
    """Threads by name with the work that they have left; what else happens is in `events`."""

    world: World
    rule: Eager | Fixed
    random: random.Random = field(default_factory=lambda: random.Random(1))
    now_us: float = 0.0
    left_us: dict[Any, float] = field(default_factory=dict)
    then: dict[Any, Callable[[], None]] = field(default_factory=dict)
    events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    number: itertools.count[int] = field(default_factory=itertools.count)
    to_ask: list[tuple[int, int]] = field(default_factory=list)  # (connection, answers), not yet seen by the generator
    to_read: list[tuple[int, int]] = field(default_factory=list)  # and requests, by the loop
    to_answer: list[list[tuple[float, int, int]]] = field(default_factory=list)
    queue: list[tuple[float, int, int]] = field(default_factory=list)  # (arrived, connection, requests)
    running: dict[int, int] = field(default_factory=dict)
    woken: bool = False
    done: int = 0
    batches: list[int] = field(default_factory=list)

    def run(self) -> float:
        """Requests a second."""
        for connection in range(self.world.connections):
            self.to_read.append((connection, self.world.streams))
        self.loop()
        while self.now_us < self.world.simulated_us:
            speed = min(1.0, self.world.cores / len(self.left_us)) if self.left_us else 1.0
            thread = min(self.left_us, key=lambda name: self.left_us[name], default=None)
            ends_us = self.now_us + self.left_us[thread] / speed if thread is not None else float("inf")
            happens_us = self.events[0][0] if self.events else float("inf")
            passed_us = (min(ends_us, happens_us) - self.now_us) * speed
            for name in self.left_us:
                self.left_us[name] -= passed_us
            self.now_us = min(ends_us, happens_us)
            if happens_us <= ends_us:
                heapq.heappop(self.events)[2]()
            else:
                del self.left_us[thread]
                self.then.pop(thread)()
        return self.done / (self.world.simulated_us - self.world.warmup_us) * 1e6

    def work(self, thread: Any, us: float, then: Callable[[], None]) -> None:
        self.left_us[thread], self.then[thread] = us * self.random.uniform(0.9, 1.1), then

    def at(self, after_us: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.events, (self.now_us + after_us, next(self.number), what))

    def ask(self) -> None:
        """The generator: an answered connection's next requests."""
        if "generator" in self.left_us or not self.to_ask:
            return
        connection, n = self.to_ask.pop(0)

        def asked() -> None:
            self.to_read.append((connection, n))
            self.loop()
            self.ask()

        self.work("generator", self.world.piece_us + n * self.world.asking_us, asked)

    def loop(self) -> None:
        if "loop" in self.left_us:
            return
        if self.to_answer:
            batch = self.to_answer.pop(0)
            n = sum(size for _, _, size in batch)
            pieces = len({connection for _, connection, _ in batch})
            us = 10 + n * self.world.answering_us + pieces * self.world.piece_us
            self.work("loop", us, lambda: self.answer(batch, n))
        elif self.to_read:
            read, self.to_read = self.to_read, []
            n = sum(size for _, size in read)
            us = 10 + n * self.world.reading_us + len(read) * self.world.piece_us
            self.work("loop", us, lambda: self.admit(read))
        elif self.woken:
            self.woken = False
            self.work("loop", 5, self.pump)

    def admit(self, read: list[tuple[int, int]]) -> None:
        for connection, n in read:
            self.queue.append((self.now_us, connection, n))
            self.rule.arrived(n, self.now_us)
        self.pump()

    def answer(self, batch: list[tuple[float, int, int]], n: int) -> None:
        self.rule.answered(n, self.now_us)
        if self.now_us > self.world.warmup_us:
            self.done += n
        by_connection: dict[int, int] = {}
        for _, connection, size in batch:
            by_connection[connection] = by_connection.get(connection, 0) + size

        def seen() -> None:
            self.to_ask.extend(by_connection.items())
            self.ask()

        self.at(20, seen)
        self.pump()

    def pump(self) -> None:
        while self.queue and len(self.running) < self.world.instances:
            queued = sum(n for _, _, n in self.queue)
            everybody = queued + sum(self.running.values())
            wake_us = self.rule.hold_until_us(queued, everybody, self.world.instances, self.now_us, self.queue[0][0])
            if wake_us:
                self.at(wake_us - self.now_us, self.wake)
                break
            self.start(self.rule.share(queued, self.world.instances - len(self.running)))
        self.loop()

    def wake(self) -> None:
        self.woken = True
        self.loop()

    def start(self, most: int) -> None:
        batch: list[tuple[float, int, int]] = []
        rows = 0
        while self.queue and rows < most:
            arrived_us, connection, n = self.queue.pop(0)
            take = min(n, most - rows)
            if take < n:
                self.queue.insert(0, (arrived_us, connection, n - take))
            batch.append((arrived_us, connection, take))
            rows += take
        executor = next(number for number in itertools.count() if number not in self.running)
        self.running[executor] = rows
        self.batches.append(rows)

        def ended() -> None:
            def told() -> None:
                del self.running[executor]
                self.to_answer.append(batch)
                self.loop()

            self.at(self.world.hop_us, told)

        self.at(self.world.hop_us, lambda: self.work(executor, cost_us(rows), ended))


LOADS = ((8, 16), (64, 1), (4, 4), (16, 2), (1, 128))
GRID = [(rows, delay_us) for rows in (8, 16, 32, 64, 128) for delay_us in (0, 250, 1000, 3000)]


def share_of_best(world: World) -> tuple[float, float, tuple[int, int]]:
    """(eager of the best fixed setting, eager as it was once of it, that setting)."""
    fixed = {setting: Simulation(world, Fixed(*setting)).run() for setting in GRID}
    best = max(fixed, key=lambda setting: fixed[setting])
    once = Simulation(world, Fixed(256, 0)).run()
    return Simulation(world, Eager()).run() / fixed[best], once / fixed[best], best


def main() -> int:
    print("| load | best fixed setting | eager, of it | without waiting |\n| --- | --- | ---: | ---: |")
    for connections, streams in LOADS:
        eager, once, (rows, delay_us) = share_of_best(World(connections, streams))
        print(f"| {connections}x{streams} | batch {rows}, delay {delay_us} us | {eager:.2f} | {once:.2f} |", flush=True)
    return 0
