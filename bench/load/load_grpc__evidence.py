"""What it costs to weigh two versions against each other: a route with a candidate, beside the same one without names.

Closed loop (h2load), one generator thread. Two workers of one build, each over the same two versions, half of the load
to either, take turns, round by round; only in one of them the arms are called stable and candidate, and so compared.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from bench import payloads, turns
from bench.context import Context
from bench.errors import NotMeasured
from bench.figure import Figure
from bench.load.load_grpc__shadow import two_versions
from bench.models import SMALL_MLP
from bench.routedworker import routed

NAME = "load_grpc__evidence"
SHAPES = ((8, 16, 200_000), (1, 1, 15_000))  # connections, streams on each, requests
TARGET = 0.95


def split(*names: str) -> dict[str, object]:
    """Half of the requests to either version, under these names."""
    arms = [{"version": version, "weight": 50, "arm": name} for version, name in zip("12", names, strict=True)]
    return {SMALL_MLP.name: {"versions": arms}}


def run(context: Context) -> Iterator[Figure]:
    if context.target is not None:
        raise NotMeasured("it compares two workers of its own: not with --target")
    models = two_versions(context.scratch / NAME, SMALL_MLP)
    body = payloads.grpc_frame(payloads.infer_request(SMALL_MLP.name, {"input": SMALL_MLP.rows(1)}))
    file = context.body_file(NAME, body)
    on, off = split("stable", "candidate"), split("left", "right")
    with (
        routed(context.scratch, models, f"{NAME}-on", sys.executable, on) as (with_, _),
        routed(context.scratch, models, f"{NAME}-off", sys.executable, off) as (without, _),
    ):
        answer_bytes = with_.check_answers(SMALL_MLP)
        ports = (with_.port, answer_bytes), (without.port, answer_bytes)
        yield from turns.compare(context, NAME, "comparison", file, SHAPES, *ports, target=TARGET)
