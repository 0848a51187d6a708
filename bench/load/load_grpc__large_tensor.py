"""602 kB image tensors: requests and GB per second, memory per request, memory growth. Closed loop (h2load), 4x4.

`image_mean` reads the tensor once, so that moving it is most of the work; `image_conv` works a little on it. The limit
takes the same uploads with windows that never close, and does not look at them.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench import h2load, payloads, procfs
from bench.context import Context
from bench.errors import NotMeasured
from bench.figure import Figure
from bench.models import IMAGE_CONV, IMAGE_MEAN, Model
from bench.server import Server

NAME = "load_grpc__large_tensor"
CONNECTIONS, STREAMS = 4, 4
REQUESTS = 4_000
COPIES_TARGET = 2.0  # of the tensor, in memory, per request in flight
_MB = 1e6


def run(context: Context) -> Iterator[Figure]:
    for model in (IMAGE_MEAN, IMAGE_CONV):
        with context.server(model) as server:  # a new one each: the first model's memory would hide the second's
            yield from _measure(context, server, model)


def _measure(context: Context, server: Server, model: Model) -> Iterator[Figure]:
    tensor = model.rows(1)
    body = payloads.grpc_frame(payloads.infer_request(model.name, {"input": tensor}))
    file = context.body_file(model.name, body)
    requests = context.scaled(REQUESTS)
    answer_bytes = server.check_answers(model, count=2)
    try:
        pids = server.pids()
    except NotMeasured:
        pids = []
    idle_bytes = procfs.rss_bytes(pids)
    with context.limit(answer_bytes, wide_windows=True) as limit:
        rates: dict[int, list[float]] = {server.port: [], limit.port: []}
        procfs.reset_peak_rss(pids)
        for port in rates:
            warm = h2load.run(port, file, CONNECTIONS, STREAMS, max(16, requests // 5))
            warm.check(model.name, answer_bytes)
        warm_bytes = procfs.rss_bytes(pids)
        for round_ in range(context.rounds):
            for port in sorted(rates, reverse=round_ % 2 == 1):
                result = h2load.run(port, file, CONNECTIONS, STREAMS, requests)
                result.check(f"{'gateway' if port == server.port else 'limit'} {model.name}", answer_bytes)
                rates[port].append(result.requests_per_s)
            mine, theirs = rates[server.port][-1], rates[limit.port][-1]
            context.say(f"{model.name} round {round_ + 1}/{context.rounds}: {mine:,.0f}/s, limit {theirs:,.0f}/s")
        peak_bytes, end_bytes = procfs.peak_rss_bytes(pids), procfs.rss_bytes(pids)
    server.check_answers(model, count=2, seed=2)
    gigabytes = tensor.nbytes / 1e9
    mine, theirs = rates[server.port], rates[limit.port]
    yield Figure(NAME, f"{model.name} requests", "/s", mine, limit_rounds=theirs, has_share=True)
    yield Figure(
        NAME,
        f"{model.name} tensors",
        "GB/s",
        [n * gigabytes for n in mine],
        limit_rounds=[n * gigabytes for n in theirs],
    )
    if pids:
        in_flight = CONNECTIONS * STREAMS
        copies = (peak_bytes - idle_bytes) / in_flight / tensor.nbytes
        yield Figure(
            NAME, f"{model.name} memory", "tensors/request", [copies], "lower", target=COPIES_TARGET,
            note=f"(peak RSS - RSS before the first load) / {in_flight} in flight / {tensor.nbytes} bytes; "
            f"{idle_bytes / _MB:.0f} MB before, {peak_bytes / _MB:.0f} MB at the peak",
        )  # fmt: skip
        yield Figure(
            NAME, f"{model.name} RSS growth", "MB", [(end_bytes - warm_bytes) / _MB], "lower",
            note=f"from after the warm-up to after {context.rounds * requests} requests",
        )  # fmt: skip
