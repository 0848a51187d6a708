"""Sends one model's rows at a steady rate, and says twice a second who answered, how often wrongly, and what failed.

A process of its own, on the native generator: arrivals follow a clock, not the answers, so a slow gateway gets no fewer
requests. Every row's true label is known here, and to nobody else. It says `ready`, and begins when it is sent a line:
a process that starts takes a processor for a second, and what it is about to measure must not suffer from that.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from demo.traffic import encode
from gateway.loadtest.measure import Shape, connected, frame, headers, plan_us
from gateway.native.generator import Generator
from gateway.pb import inference as pb

CONNECTIONS, STREAMS = 4, 64
LONGEST_S = 600.0
TELL_S = 0.5
STEP_S = 0.05


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.rollouts.stream")
    parser.add_argument("model")
    parser.add_argument("rows", type=Path, metavar="FILE.npz")
    parser.add_argument("port", type=int)
    parser.add_argument("rate", type=float, help="requests a second; 0: as many as are answered")
    given = parser.parse_args()
    with np.load(given.rows) as file:
        inputs = {name.removeprefix("input:"): file[name] for name in file.files if name.startswith("input:")}
        truth = [str(label) for label in file["truth"]]
    messages = [frame(encode(given.model, inputs, row)) for row in range(len(truth))]
    shape = Shape(CONNECTIONS, STREAMS, LONGEST_S, 0.0, given.rate or None, seed=len(truth))
    stop = False

    def on_signal(*_: object) -> None:
        nonlocal stop
        stop = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    print("ready", flush=True)
    sys.stdin.readline()
    with connected("127.0.0.1", given.port, CONNECTIONS) as sockets:
        authority = f"127.0.0.1:{given.port}".encode()
        generator = Generator(sockets, messages, headers(authority), STREAMS, plan_us(shape), True)
        tally, told_s = Tally(truth), 0.0
        while not stop and generator.n_alive:
            generator.step(STEP_S)
            if (now_s := time.monotonic()) - told_s >= TELL_S:
                told_s = now_s
                tell(tally.of(generator))
        generator.end()
        until_s = time.monotonic() + 5.0
        while generator.n_open and time.monotonic() < until_s:
            generator.step(STEP_S)
        generator.give_up()
        tell(tally.of(generator))
    return 0


class Tally:
    """Answers by version, held against the truth. Every different answer is read once."""

    def __init__(self, truth: list[str]) -> None:
        self._truth = truth
        self._read: dict[tuple[int, bytes], tuple[str, str]] = {}

    def of(self, generator: Any) -> dict[str, Any]:
        answered: dict[str, int] = {}
        wrong: dict[str, int] = {}
        said: dict[str, dict[str, int]] = {}
        for row, answer, n in generator.answers:
            if (row, answer) not in self._read:
                response = pb.ModelInferResponse.FromString(answer[5:])
                self._read[row, answer] = response.model_version, _said(response)
            version, label = self._read[row, answer]
            answered[version] = answered.get(version, 0) + n
            wrong[version] = wrong.get(version, 0) + n * (label != self._truth[row])
            labels = said.setdefault(version, {})
            labels[label] = labels.get(label, 0) + n
        counts = generator.counts()
        failed = sum(n for code, n in counts["statuses"].items() if code) + sum(counts["losses"].values())
        return {"answered": answered, "wrong": wrong, "said": said, "failed": failed}


def _said(response: Any) -> str:
    """The first output's label; of numbers that are no label only whether they are numbers."""
    raw = response.raw_output_contents[0]
    if response.outputs[0].datatype == "BYTES":
        return bytes(raw[4:]).decode()
    if response.outputs[0].datatype == "FP32":
        return "finite" if np.isfinite(np.frombuffer(raw, np.float32)).all() else "not finite"
    return str(np.frombuffer(raw, np.int64)[0])


def tell(document: dict[str, Any]) -> None:
    try:
        print(json.dumps(document), flush=True)
    except BrokenPipeError:
        sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
