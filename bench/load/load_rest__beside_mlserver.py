"""REST JSON with 30 floats, beside MLServer on the same work. Closed loop (h2load), both servers in one process each.

Held still: the request, the model (MLServer runs the same ONNX file in ONNX Runtime on one thread), the generator, the
machine. The two take turns, round by round; the share is gateway / MLServer.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench import h2load, payloads, restclient
from bench.context import Context
from bench.figure import Figure
from bench.models import SMALL_MLP

NAME = "load_rest__beside_mlserver"
CONNECTIONS = 64
REQUESTS = {"gateway": 60_000, "MLServer": 4_000}
TARGET = 10.0


def run(context: Context) -> Iterator[Figure]:
    body = context.body_file(NAME, payloads.rest_json({"input": SMALL_MLP.rows(1)}))
    call = h2load.rest(SMALL_MLP.name)
    rates: dict[str, list[float]] = {name: [] for name in REQUESTS}
    with context.mlserver(SMALL_MLP) as peer, context.server(SMALL_MLP) as server:
        ports = {"gateway": server.port, "MLServer": peer}
        for name, port in ports.items():
            restclient.wait_until_ready(port, SMALL_MLP.name, name)
            restclient.check_answers(port, SMALL_MLP, name)
            warm_up = h2load.run(port, body, CONNECTIONS, 1, context.scaled(REQUESTS[name]) // 5, call)
            warm_up.check_statuses(name)
        for round_ in range(context.rounds):
            for name in sorted(ports, reverse=round_ % 2 == 1):
                result = h2load.run(ports[name], body, CONNECTIONS, 1, context.scaled(REQUESTS[name]), call)
                result.check_statuses(name)
                rates[name].append(result.requests_per_s)
            mine, theirs = rates["gateway"][-1], rates["MLServer"][-1]
            context.say(f"round {round_ + 1}/{context.rounds}: {mine:,.0f}/s, MLServer {theirs:,.0f}/s")
        for name, port in ports.items():
            restclient.check_answers(port, SMALL_MLP, name, seed=2)
    yield Figure(
        NAME, "REST JSON, 30 floats", "/s", rates["gateway"], limit_rounds=rates["MLServer"], has_share=True,
        target=TARGET, note=f"{CONNECTIONS}x1; in the limit's place MLServer's REST, parallel_workers 0",
    )  # fmt: skip
