"""What it costs to count 30 columns and an output against a profile: the tiny model with and without, side by side.

Closed loop (h2load), one generator thread. Held still: the request (30 FP32), the model, the generator, the machine.
Two gateways of one build take turns, round by round; the one without has `monitoring: {enabled: false}`.
"""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench import h2load, payloads, procfs, server
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
        for connections, streams, requests in SHAPES:
            requests = context.scaled(requests)
            shape = f"{connections}x{streams}"
            ports = with_.port, without.port
            rates: dict[int, list[float]] = {port: [] for port in ports}
            cpu_us: dict[int, list[float]] = {port: [] for port in ports}
            for port in ports:
                h2load.run(port, file, connections, streams, max(connections, requests // 5)).check(shape, answer_bytes)
            for round_ in range(2 * context.rounds + 1):  # the difference is small: more rounds than elsewhere
                for port in sorted(ports, reverse=round_ % 2 == 1):  # who goes first changes every round
                    pids = procfs.listeners(port)
                    before_s = procfs.cpu_s(pids)
                    result = h2load.run(port, file, connections, streams, requests)
                    result.check(f"{'on' if port == with_.port else 'off'} {shape}", answer_bytes)
                    rates[port].append(result.requests_per_s)
                    cpu_us[port].append((procfs.cpu_s(pids) - before_s) / requests * 1e6)
                mine, theirs = rates[with_.port][-1], rates[without.port][-1]
                context.say(f"{shape} round {round_ + 1}: {mine:,.0f}/s with, {theirs:,.0f}/s without")
            yield Figure(
                NAME, f"{shape} requests, beside no monitoring", "/s", rates[with_.port],
                limit_rounds=rates[without.port], has_share=True, target=TARGET,
            )  # fmt: skip
            more_us = [a - b for a, b in zip(cpu_us[with_.port], cpu_us[without.port], strict=True)]
            yield Figure(
                NAME,
                f"{shape} server CPU, beside no monitoring",
                "us/request",
                cpu_us[with_.port],
                "lower",
                limit_rounds=cpu_us[without.port],
                note=f"median difference {statistics.median(more_us):.2f} us",
            )
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
