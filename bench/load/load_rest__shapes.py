"""REST over HTTP/1.1 beside gRPC: JSON with 30 and with 1,000 floats, and 602 kB binary. Closed loop (h2load).

Held still: rows, model, generator, machine. What stands in the limit's place is gRPC in the same run, on the same port
of the same gateway, with as many requests in flight: the share is what a caller gives up by speaking REST.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench import h2load, payloads, restclient
from bench.context import Context
from bench.figure import Figure
from bench.models import IMAGE_MEAN, SMALL_MLP, WIDE_MEAN, Model

NAME = "load_rest__shapes"
SHAPES = (  # model, binary, connections, requests
    (SMALL_MLP, False, 64, 60_000),
    (WIDE_MEAN, False, 64, 30_000),
    (IMAGE_MEAN, True, 16, 3_000),
)


def run(context: Context) -> Iterator[Figure]:
    for model, is_binary, connections, requests in SHAPES:
        yield from _measure(context, model, is_binary, connections, context.scaled(requests))


def _measure(context: Context, model: Model, is_binary: bool, connections: int, requests: int) -> Iterator[Figure]:
    inputs = {"input": model.rows(1)}
    rest = h2load.rest(model.name)
    if is_binary:
        body, n_json = payloads.rest_binary(inputs)
        length = f"inference-header-content-length: {n_json}"
        rest = h2load.rest(model.name, "content-type: application/octet-stream", length)
    else:
        body = payloads.rest_json(inputs)
    frame = payloads.grpc_frame(payloads.infer_request(model.name, inputs))
    calls = {
        "REST": (context.body_file(f"{model.name}-rest", body), rest),
        "gRPC": (context.body_file(f"{model.name}-grpc", frame), h2load.GRPC),
    }
    rates: dict[str, list[float]] = {name: [] for name in calls}
    with context.server(model) as server:
        grpc_bytes = server.check_answers(model, count=2)
        restclient.check_answers(server.port, model, "gateway", count=2)
        for file, call in calls.values():
            h2load.run(server.port, file, connections, 1, max(connections, requests // 5), call).check_statuses(
                "warm-up"
            )
        for round_ in range(context.rounds):
            for name in sorted(calls, reverse=round_ % 2 == 1):
                result = h2load.run(server.port, *calls[name][:1], connections, 1, requests, calls[name][1])
                result.check_statuses(f"{name} {model.name}")
                if name == "gRPC":
                    result.check(f"gRPC {model.name}", grpc_bytes)
                rates[name].append(result.requests_per_s)
            mine, theirs = rates["REST"][-1], rates["gRPC"][-1]
            context.say(f"{model.name} round {round_ + 1}/{context.rounds}: REST {mine:,.0f}/s, gRPC {theirs:,.0f}/s")
        restclient.check_answers(server.port, model, "gateway", count=2, seed=2)
    what = "602 kB binary" if is_binary else f"JSON, {model.rows(1).size:,} floats"
    yield Figure(
        NAME, f"REST {what}", "/s", rates["REST"], limit_rounds=rates["gRPC"], has_share=True,
        note=f"{connections}x1; the limit is gRPC in the same run; {len(body):,} bytes of body",
    )  # fmt: skip
