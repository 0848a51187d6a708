"""What it costs to count 30 columns and an output against a profile: the tiny model with and without, side by side.

Closed loop (h2load), one generator thread. Held still: the request (30 FP32), the model, the generator, the machine.
Two gateways of one build take turns, round by round; the one without has `monitoring: {enabled: false}`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench import payloads, server, turns
from bench.context import Context
from bench.errors import NotMeasured
from bench.figure import Figure
from bench.models import SMALL_MLP, write_repository

NAME = "load_grpc__monitored"
SHAPES = ((8, 16, 200_000), (64, 1, 80_000), (1, 1, 15_000))  # connections, streams on each, requests
TARGET = 0.90
BASELINE_ROWS = 20_000


def run(context: Context) -> Iterator[Figure]:
    if context.target is not None:
        raise NotMeasured("it compares two gateways of its own: not with --target")
    body = payloads.grpc_frame(payloads.infer_request(SMALL_MLP.name, {"input": SMALL_MLP.rows(1)}, outputs=["output"]))
    file = context.body_file(NAME, body)
    on, off = context.scratch / "monitored", context.scratch / "unmonitored"
    _build_profile(context.gateway, on)
    config = off / "models" / SMALL_MLP.name / "model.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text("monitoring: {enabled: false}\n")
    with (
        server.gateway(context.gateway, on, (SMALL_MLP,)) as with_,
        server.gateway(context.gateway, off, (SMALL_MLP,)) as without,
    ):
        answer_bytes = with_.check_answers(SMALL_MLP)
        ports = (with_.port, answer_bytes), (without.port, answer_bytes)
        yield from turns.compare(context, NAME, "monitoring", file, SHAPES, *ports, target=TARGET)
        with_.check_answers(SMALL_MLP, seed=2)


def _build_profile(gateway: Path, folder: Path) -> None:
    """As an operator does it, from a data file."""
    models = write_repository(folder / "models", (SMALL_MLP,))
    data = folder / "data.npz"
    np.savez(data, input=SMALL_MLP.rows(BASELINE_ROWS, seed=3))
    command = [str(gateway), "profile", "build", "--model", SMALL_MLP.name, "--version", "1", str(data)]
    done = subprocess.run([*command, "--models", str(models)], capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise NotMeasured(f"gateway profile build failed: {done.stderr[-300:]}")
