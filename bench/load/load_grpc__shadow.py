"""The primary's p99 with a shadow for every request, beside none. Open loop: Poisson arrivals, 8 connections.

Two workers over the same two versions, one without a shadow and one with `percent: 100`, get the same arrivals in turn,
at a quarter of the first one's peak rate; the share is taken per pair of rounds. The shadow is as large as the primary.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench import h2load, open_loop, payloads
from bench.context import Context
from bench.figure import Figure
from bench.models import SMALL_MLP, WIDE_MLP, Model, write_repository
from bench.routedworker import routed

NAME = "load_grpc__shadow"
CONNECTIONS, STREAMS = 8, 16
SECONDS, QUICK_SECONDS = 4.0, 1.0
TARGET = 1.10  # of the p99 without
MAX_RATE_PER_S = 20_000  # above it this generator shows itself
BUDGET = {"max_concurrency": 1024, "max_rows": 1024}  # the default of 64 is 3 ms of such traffic
SETTLE_S = 1.5  # after a round: the shadow's last requests run, or miss their deadline


def run(context: Context) -> Iterator[Figure]:
    for model, first_requests in ((SMALL_MLP, 4_000), (WIDE_MLP, 400)):
        yield from _measure(context, model, first_requests)


def _measure(context: Context, model: Model, first_requests: int) -> Iterator[Figure]:
    models = two_versions(context.scratch / model.name, model)
    body = payloads.grpc_frame(payloads.infer_request(model.name, {"input": model.rows(1)}))
    file = context.body_file(f"{NAME}-{model.name}", body)
    shadowed = {model.name: {"versions": {"1": 100}, "shadows": [{"version": "2"} | BUDGET]}}
    plain = {model.name: {"versions": {"1": 100}}}
    seconds = QUICK_SECONDS if context.quick else SECONDS
    with (
        routed(context.scratch, models, f"{model.name}-plain", sys.executable, plain) as (without, _),
        routed(context.scratch, models, f"{model.name}-shadowed", sys.executable, shadowed) as (with_shadow, report),
    ):
        answer_bytes = without.check_answers(model)
        with_shadow.check_answers(model)
        requests, peaks = first_requests, []
        for _ in range(3):
            result = h2load.run(without.port, file, CONNECTIONS, STREAMS, requests)
            result.check(model.name, answer_bytes)
            peaks.append(result.requests_per_s)
            requests = max(first_requests, int(result.requests_per_s))
        rate = min(max(peaks) / 4, MAX_RATE_PER_S)
        rounds: dict[int, list[open_loop.Latencies]] = {with_shadow.port: [], without.port: []}
        for port in rounds:
            open_loop.run(port, body, rate, min(1.0, seconds), CONNECTIONS)
            time.sleep(SETTLE_S)
        for round_ in range(context.rounds):
            for port in sorted(rounds, reverse=round_ % 2 == 1):
                rounds[port].append(open_loop.run(port, body, rate, seconds, CONNECTIONS, seed=round_))
                time.sleep(SETTLE_S)
            mine, theirs = rounds[with_shadow.port][-1], rounds[without.port][-1]
            context.say(
                f"{model.name} at {rate:,.0f}/s, round {round_ + 1}/{context.rounds}: p50 {mine.p50_us:,.0f} us with, "
                f"{theirs.p50_us:,.0f} without; p99 {mine.p99_us:,.0f} with, {theirs.p99_us:,.0f} without"
            )
        with_shadow.check_answers(model, seed=2)
    note = f"at {rate:,.0f} requests/s; {_told(report, model)}"
    for name, field in (("p50", "p50_us"), ("p99", "p99_us")):
        mine_us, theirs_us = ([getattr(found, field) for found in rounds[port]] for port in rounds)
        target = TARGET if name == "p99" else None
        yield Figure(
            NAME, f"{model.name} {name}", "us", mine_us, "lower", theirs_us, has_share=True, target=target, note=note
        )


def two_versions(root: Path, model: Model) -> Path:
    write_repository(root, (model,))
    shutil.copytree(root / model.name / "1", root / model.name / "2")
    return root


def _told(report: Path, model: Model) -> str:
    """What became of the shadow's requests."""
    if not report.exists():
        return "no report of the shadow"
    counts = json.loads(report.read_text()).get(f"{model.name}/2", {})
    drawn = counts.get("drawn") or 1
    dropped = ", ".join(f"{reason} {count / drawn:.1%}" for reason, count in counts.get("dropped", {}).items())
    return f"of {drawn:,} requests {counts.get('compared', 0) / drawn:.1%} compared; dropped: {dropped or 'none'}"
