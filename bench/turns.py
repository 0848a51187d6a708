"""The same closed loop (h2load) on two servers in turn, round by round: what the one does beside what the other does.

Who goes first changes every round, so that a machine that is slow for a while is slow for both.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import h2load, procfs
from bench.context import Context
from bench.figure import Figure


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two, and what its rounds gave."""

    name: str  # in what is said
    port: int
    answer_bytes: int  # of the right answer
    per_s: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)  # of its processes, per request


def take(
    context: Context,
    file: Path,
    connections: int,
    streams: int,
    requests: int,
    rounds: int,
    *sides: tuple[str, int, int],
) -> list[Side]:
    """`rounds` of `requests` to each of `sides` (name, port, bytes of the right answer), after a fifth to warm up."""
    found = [Side(*side) for side in sides]
    shape = f"{connections}x{streams}"
    for side in found:
        warm = h2load.run(side.port, file, connections, streams, max(connections, requests // 5))
        warm.check(f"{side.name} {shape}", side.answer_bytes)
    for round_ in range(rounds):
        for side in found if round_ % 2 == 0 else reversed(found):
            pids = procfs.listeners(side.port)
            before_s = procfs.cpu_s(pids)
            result = h2load.run(side.port, file, connections, streams, requests)
            result.check(f"{side.name} {shape}", side.answer_bytes)
            side.per_s.append(result.requests_per_s)
            side.cpu_us.append((procfs.cpu_s(pids) - before_s) / requests * 1e6)
        told = ", ".join(f"{side.per_s[-1]:,.0f}/s {side.name}" for side in found)
        context.say(f"{shape} round {round_ + 1}/{rounds}: {told}")
    return found


def compare(
    context: Context,
    bench: str,
    what: str,
    file: Path,
    shapes: Sequence[tuple[int, int, int]],
    with_: tuple[int, int],
    without: tuple[int, int],
    target: float | None = None,
) -> Iterator[Figure]:
    """What `what` costs, by shape (connections, streams on each, requests): two gateways, each as its port and the
    bytes of its right answer. `target` is of the share of the requests.
    """
    rounds = 2 * context.rounds + 1  # the difference is small: more of them than elsewhere
    for connections, streams, requests in shapes:
        mine, theirs = take(
            context, file, connections, streams, context.scaled(requests), rounds,
            ("with", *with_), ("without", *without),
        )  # fmt: skip
        shape = f"{connections}x{streams}"
        yield Figure(
            bench, f"{shape} requests, beside no {what}", "/s", mine.per_s,
            limit_rounds=theirs.per_s, has_share=True, target=target,
        )  # fmt: skip
        more_us = statistics.median(a - b for a, b in zip(mine.cpu_us, theirs.cpu_us, strict=True))
        yield Figure(
            bench, f"{shape} server CPU, beside no {what}", "us/request", mine.cpu_us, "lower",
            limit_rounds=theirs.cpu_us, note=f"median difference {more_us:.2f} us",
        )  # fmt: skip
