"""Start until ready, SIGTERM until exit (idle and under load), and what an idle connection costs in memory.

Held still: one tiny model, one worker. Under load means h2load 8x16, closed loop, until the data
plane has worked for 0.3 s of processor time.
"""

from __future__ import annotations

import resource
import select
import time
from collections.abc import Iterator

from bench import h2load, payloads, procfs
from bench.context import Context
from bench.errors import BenchError
from bench.figure import Figure
from bench.http2 import Connection
from bench.models import SMALL_MLP
from bench.processes import Child

NAME = "load_grpc__life_cycle"
IDLE_CONNECTIONS = 1_000
IDLE_KB_TARGET = 32.0  # 32 kB = 32,000 bytes; buffers belong to the loop, not to the connection
_WARM_CONNECTIONS = 8
_PATIENCE_S = 10.0
_OWN_FILES = 200


def run(context: Context) -> Iterator[Figure]:
    body = payloads.grpc_frame(payloads.infer_request(SMALL_MLP.name, {"input": SMALL_MLP.rows(1)}))
    yield from _idle_connections(context, body)
    if context.target is None:
        yield from _stops(context, body)


def _idle_connections(context: Context, body: bytes) -> Iterator[Figure]:
    count = _allowed_connections()
    with context.server(SMALL_MLP) as server:
        answer_bytes = server.check_answers(SMALL_MLP)
        with context.limit(answer_bytes) as limit:
            context.say(f"{count} idle connections")
            fresh_kb, used_kb = _connection_cost(server.port, server.pids(), body, count)
            limit_fresh_kb, limit_used_kb = _connection_cost(limit.port, limit.pids(), body, count)
        server.check_answers(SMALL_MLP, seed=2)
    note = f"growth of RSS over {count} connections that exchanged SETTINGS, divided by {count}"
    yield Figure(
        NAME, "idle connection, new", "kB", [fresh_kb], "lower", [limit_fresh_kb], target=IDLE_KB_TARGET, note=note
    )
    yield Figure(
        NAME, "idle connection, used", "kB", [used_kb], "lower", [limit_used_kb], target=IDLE_KB_TARGET,
        note="the same, after one request and its answer on each",
    )  # fmt: skip


def _connection_cost(port: int, pids: list[int], body: bytes, count: int) -> tuple[float, float]:
    """kB per connection: after the greeting only, and after one request on each."""
    _close(_opened(port, body, _WARM_CONNECTIONS, is_used=True))  # what the first connections bring once is not theirs
    before_bytes = _settled_rss_bytes(pids)
    links = _opened(port, body, count, is_used=False)
    try:
        fresh_bytes = _settled_rss_bytes(pids)
        _use(links)
        used_bytes = _settled_rss_bytes(pids)
    finally:
        _close(links)
    return (fresh_bytes - before_bytes) / count / 1e3, (used_bytes - before_bytes) / count / 1e3


def _opened(port: int, body: bytes, count: int, *, is_used: bool) -> list[Connection]:
    links = [Connection(port, body).greet() for _ in range(count)]
    if is_used:
        _use(links)
    return links


def _use(links: list[Connection]) -> None:
    """One request on each; returns when all answers are there."""
    for link in links:
        link.send(1)
    end = time.monotonic() + _PATIENCE_S
    for link in links:
        while link.in_flight:
            if not select.select([link.socket], (), (), 1.0)[0] and time.monotonic() > end:
                raise BenchError(f"no answer on an idle connection within {_PATIENCE_S} s")
            link.receive()


def _close(links: list[Connection]) -> None:
    for link in links:
        link.close()


def _settled_rss_bytes(pids: list[int]) -> int:
    """RSS once three looks in a row, 0.1 s apart, saw the same; or the last one after 3 s."""
    seen: list[int] = []
    for _ in range(30):
        seen.append(procfs.rss_bytes(pids))
        if len(seen) >= 3 and len(set(seen[-3:])) == 1:
            break
        time.sleep(0.1)
    return seen[-1]


def _stops(context: Context, body: bytes) -> Iterator[Figure]:
    file = context.body_file(NAME, body)
    ready_s, idle_ms, loaded_ms = [], [], []
    codes: set[int] = set()
    for round_ in range(3):
        with context.server(SMALL_MLP) as server:
            assert server.ready_s is not None
            ready_s.append(server.ready_s)
            stop_s, code = server.own_child().terminate()
            idle_ms.append(stop_s * 1e3)
            codes.add(code)
        with context.server(SMALL_MLP) as server:
            load = Child(h2load.command(server.port, file, 8, 16, seconds=60), context.scratch / "h2load.log")
            try:
                _wait_until_loaded(server.pids())
                stop_s, code = server.own_child().terminate()
            finally:
                load.kill()
            loaded_ms.append(stop_s * 1e3)
            codes.add(code)
        context.say(f"stop {round_ + 1}/3: idle {idle_ms[-1]:.0f} ms, under load {loaded_ms[-1]:.0f} ms")
    yield Figure(NAME, "start until SERVING", "s", ready_s, "lower")
    yield Figure(
        NAME, "SIGTERM until exit, idle", "ms", idle_ms, "lower",
        note="exit codes 0" if codes == {0} else f"exit codes {sorted(codes)}, expected 0",
    )  # fmt: skip
    yield Figure(NAME, "SIGTERM until exit, loaded", "ms", loaded_ms, "lower")


def _wait_until_loaded(pids: list[int]) -> None:
    """Until the data plane has worked for a third of a processor second."""
    start_s, end = procfs.cpu_s(pids), time.monotonic() + _PATIENCE_S
    while procfs.cpu_s(pids) - start_s < 0.3:
        if time.monotonic() > end:
            raise BenchError(f"h2load did not load the gateway within {_PATIENCE_S} s")
        time.sleep(0.01)


def _allowed_connections() -> int:
    """1,000, or what the limit of open files leaves."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = IDLE_CONNECTIONS + _OWN_FILES
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(IDLE_CONNECTIONS, soft - _OWN_FILES)
