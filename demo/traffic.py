"""`python -m demo.traffic MODEL`: rows of the model's own data, at a steady rate, and which version answered them.

What a person needs beside the gateway to see a route change, a shadow disagree or a column drift. Each request is one
row of the version's reference.npz, drawn at random, from one of a thousand users (`x-user`, so that a sticky route has
a key). Arrivals follow a clock, not the answers: a slow server gets no fewer requests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from gateway.monitoring.profile import load_profile
from gateway.pb import inference as pb

METHOD = "/inference.GRPCInferenceService/ModelInfer"
N_USERS = 1000
PATIENCE_S = 10.0
MAX_WAITING = 2000
"""Requests without an answer: above it the server does not keep up, and more would only say so louder."""

Array = np.ndarray[Any, Any]
Inputs = dict[str, Array]


@dataclass(frozen=True, slots=True)
class Drift:
    """One numeric column: moved by `shift` of its standard deviations, or missing (NaN) in a share of the rows."""

    tensor: str
    index: int
    shift: float = 0.0
    missing: float = 0.0

    def apply(self, inputs: Inputs, draw: np.random.Generator) -> Inputs:
        values = inputs[self.tensor].copy()
        flat = values.reshape(len(values), -1)
        flat[:, self.index] += self.shift * flat[:, self.index].std()
        flat[draw.random(len(flat)) < self.missing, self.index] = np.nan
        return {**inputs, self.tensor: values}


@dataclass(slots=True)
class Score:
    """What has come back so far."""

    began_s: float
    sent: int = 0
    answered: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    skipped: int = 0
    last_error: str = ""
    took_ms: list[float] = field(default_factory=list)

    def line(self, now_s: float) -> str:
        n = self.answered.total()
        shares = ", ".join(f"version {v} {c} ({c / n:.1%})" for v, c in sorted(self.answered.items())) or "none yet"
        middle = f", median {np.median(self.took_ms[-2000:]):.1f} ms" if self.took_ms else ""
        failed = f"; {self.failed.total()} failed: {self.last_error}" if self.failed else "; 0 failed"
        skipped = f"; {self.skipped} not sent, too many were waiting" if self.skipped else ""
        return f"{now_s - self.began_s:6.0f} s  {n} answered: {shares}{middle}{failed}{skipped}"

    def as_json(self, now_s: float) -> str:
        return json.dumps(
            {
                "seconds": round(now_s - self.began_s, 3),
                "sent": self.sent,
                "answered": dict(self.answered),
                "failed": dict(self.failed),
                "not_sent": self.skipped,
            }
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m demo.traffic", description="Send rows of a demo model's data at a steady rate, until Ctrl-C."
    )
    parser.add_argument("model", help="breast_cancer, digits or wine")
    parser.add_argument("--rate", type=float, default=100.0, metavar="N", help="requests a second (default 100)")
    parser.add_argument("--seconds", type=float, default=0.0, metavar="S", help="stop by itself (default: never)")
    parser.add_argument(
        "--drift",
        action="append",
        default=[],
        metavar="COLUMN=AMOUNT",
        help="'mean radius=+1.5' moves that column by standard deviations, 'hue=nan:0.2' loses a share; repeatable",
    )
    parser.add_argument("--after", type=float, default=0.0, metavar="S", help="how long it does not drift yet")
    parser.add_argument("--header", action="append", default=[], metavar="NAME=VALUE", help="send it with each request")
    parser.add_argument("--models", type=Path, default=Path("models"), metavar="DIR", help="the model repository")
    parser.add_argument("--version", default="1", metavar="N", help="whose data and columns (default 1)")
    parser.add_argument("--url", default="127.0.0.1:8001", metavar="HOST:PORT", help="gRPC address of the gateway")
    parser.add_argument("--seed", type=int, default=None, help="the same rows again")
    parser.add_argument("--json", action="store_true", help="one JSON object at the end instead of lines")
    arguments = parser.parse_args()
    if arguments.rate <= 0:
        parser.error(f"--rate: got {arguments.rate:g}, expected more than 0 requests a second")
    folder = arguments.models / arguments.model / arguments.version
    try:
        with np.load(folder / "reference.npz") as file:
            inputs = {name.removeprefix("input:"): file[name] for name in file.files if name.startswith("input:")}
    except OSError as error:
        parser.error(f"{folder / 'reference.npz'}: {str(error.strerror).lower()}; make demo-models trains the models")
    draw = np.random.default_rng(arguments.seed)
    drifted = inputs
    for text in arguments.drift:
        try:
            drifted = drift_from(text, folder, inputs).apply(drifted, draw)
        except ValueError as error:
            parser.error(f"--drift: {error}")
    metadata = []
    for text in arguments.header:
        name, equals, value = text.partition("=")
        if not equals or not name:
            parser.error(f"--header: got {text!r}, expected NAME=VALUE")
        metadata.append((name.lower(), value))
    return asyncio.run(send(arguments, inputs, drifted, metadata, draw))


def drift_from(text: str, folder: Path, inputs: Inputs) -> Drift:
    """ValueError names what came and which columns there are."""
    name, equals, amount = text.rpartition("=")
    numbers = {c.name: c for c in load_profile(folder).columns if inputs[c.tensor].dtype.kind == "f"}
    if not equals:
        raise ValueError(f"got {text!r}, expected COLUMN=+1.5 or COLUMN=nan:0.2")
    if name not in numbers:
        raise ValueError(f"got column {name!r}, expected one of {', '.join(sorted(numbers))}")
    column = numbers[name]
    try:
        number = float(amount.removeprefix("nan:"))
    except ValueError:
        raise ValueError(f"got {amount!r} for {name}, expected deviations such as +1.5, or nan:SHARE") from None
    if not amount.startswith("nan:"):
        return Drift(column.tensor, column.offset, shift=number)
    if not 0 <= number <= 1:
        raise ValueError(f"got {amount!r} for {name}, expected a share from 0 to 1")
    return Drift(column.tensor, column.offset, missing=number)


def encode(model: str, inputs: Inputs, row: int) -> bytes:
    """A ModelInferRequest with one row."""
    request = pb.ModelInferRequest(model_name=model)
    for name, values in inputs.items():
        tensor = request.inputs.add(name=name, shape=[1, *values.shape[1:]])
        if values.dtype.kind == "f":
            tensor.datatype = "FP32"
            tensor.contents.fp32_contents.extend(values[row].ravel().tolist())
        else:
            tensor.datatype = "BYTES"
            tensor.contents.bytes_contents.extend(str(word).encode() for word in values[row].ravel())
    return bytes(request.SerializeToString())


async def send(
    arguments: argparse.Namespace,
    inputs: Inputs,
    drifted: Inputs,
    metadata: list[tuple[str, str]],
    draw: np.random.Generator,
) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    n_rows = len(next(iter(inputs.values())))
    usual, strange = ([encode(arguments.model, given, row) for row in range(n_rows)] for given in (inputs, drifted))
    score = Score(time.monotonic())
    waiting: set[asyncio.Task[None]] = set()
    told_s = score.began_s
    async with grpc.aio.insecure_channel(arguments.url) as channel:
        infer: Any = channel.unary_unary(METHOD)
        while not stop.is_set():
            now_s = time.monotonic()
            passed_s = now_s - score.began_s
            if arguments.seconds and passed_s >= arguments.seconds:
                break
            bodies = strange if passed_s >= arguments.after else usual
            due = int(passed_s * arguments.rate) + 1
            while score.sent + score.skipped < due:
                if len(waiting) >= MAX_WAITING:
                    score.skipped += 1
                    continue
                score.sent += 1
                user = ("x-user", f"user-{draw.integers(N_USERS)}")
                task = asyncio.create_task(ask(infer, bodies[draw.integers(n_rows)], [user, *metadata], score))
                waiting.add(task)
                task.add_done_callback(waiting.discard)
            if not arguments.json and now_s - told_s >= 1.0:
                told_s = now_s
                tell(score.line(now_s))
            pause_s = max(0.0, score.began_s + (score.sent + score.skipped) / arguments.rate - time.monotonic())
            try:
                await asyncio.wait_for(stop.wait(), min(pause_s, 0.25))
            except TimeoutError:
                continue
        if waiting:
            await asyncio.wait(waiting)
    now_s = time.monotonic()
    print(score.as_json(now_s) if arguments.json else ("\n" if sys.stdout.isatty() else "") + score.line(now_s).strip())
    return 0 if score.answered else 1


async def ask(infer: Any, body: bytes, metadata: list[tuple[str, str]], score: Score) -> None:
    began_s = time.monotonic()
    try:
        answer = await infer(body, metadata=metadata, timeout=PATIENCE_S)
    except grpc.aio.AioRpcError as error:
        score.failed[error.code().name] += 1
        score.last_error = f"{error.code().name}: {error.details()}"
        return
    score.took_ms.append((time.monotonic() - began_s) * 1e3)
    del score.took_ms[:-10_000]
    score.answered[pb.ModelInferResponse.FromString(answer).model_version] += 1


def tell(line: str) -> None:
    """On a terminal the line is written over the one before."""
    if sys.stdout.isatty():
        print(f"\r\x1b[K{line}", end="", flush=True)
    else:
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
