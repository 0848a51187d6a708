"""Drives perf and callgrind: each gives counts by stage for one shape of load."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench import h2load, payloads, procfs
from bench.errors import BenchError, NotMeasured
from bench.models import SMALL_MLP, write_repository
from bench.processes import Child, free_port
from bench.profile import stacks
from bench.profile.callgrind import Dump
from bench.server import Server, wait_until_serving

SAMPLES_PER_S = 2000
STACK_BYTES = 16384  # copied with each sample, and unwound afterwards: our libraries have no frame pointers
COMMAND_S = 120


@dataclass(frozen=True, slots=True)
class Load:
    """Connections x streams of h2load, and how many requests are enough under each tool."""

    connections: int
    streams: int
    timed: int
    counted: int

    @property
    def name(self) -> str:
        return f"{self.connections}x{self.streams}"


LOADS = (Load(8, 16, 600_000, 12_800), Load(1, 1, 80_000, 1_500))


@dataclass(slots=True)
class Times:
    """Processor time of the worker. `samples` by stage; `folded` by path, for the picture."""

    ns_per_request: float
    samples: Counter[str] = field(default_factory=Counter)
    folded: Counter[tuple[str, ...]] = field(default_factory=Counter)

    def ns(self, stage: str) -> float:
        return self.ns_per_request * self.samples[stage] / max(1, self.samples.total())


class Bench:
    """The model, a request for it, and the right answer's size."""

    def __init__(self, scratch: Path, say: Callable[[str], None]) -> None:
        self.scratch, self.say = scratch, say
        self.models = write_repository(scratch / "models", (SMALL_MLP,))
        self.body = scratch / "request"
        request = payloads.infer_request(SMALL_MLP.name, {"input": SMALL_MLP.rows(1)}, outputs=["output"])
        self.body.write_bytes(payloads.grpc_frame(request))

    def start(self, prefix: list[str], *flags: str) -> tuple[Server, int]:
        """The worker, SERVING, and its answer's size."""
        port = free_port()
        command = [*prefix, sys.executable, "-m", "bench.profile.worker", "--models", str(self.models)]
        child = Child([*command, "--port", str(port), *flags], self.scratch / "worker.log")
        try:
            wait_until_serving(port, child)
            server = Server(port, child, None)
            return server, server.check_answers(SMALL_MLP)
        except BaseException:
            child.kill()
            raise

    def drive(self, server: Server, load: Load, requests: int, answer_bytes: int) -> float:
        """Requests per second."""
        result = h2load.run(server.port, self.body, load.connections, load.streams, requests)
        result.check(f"profile {load.name}", answer_bytes)
        return result.requests_per_s


def time_stages(bench: Bench, loads: tuple[Load, ...]) -> dict[str, Times]:
    """Under perf, at full speed."""
    perf = _tool("perf", "linux-perf")
    found = {}
    server, answer_bytes = bench.start([])
    child = server.own_child()
    try:
        pid = child.process.pid
        for load in loads:
            bench.drive(server, load, load.timed // 4, answer_bytes)
            before_s = procfs.cpu_s([pid])
            bench.drive(server, load, load.timed, answer_bytes)
            ns = (procfs.cpu_s([pid]) - before_s) / load.timed * 1e9  # without perf, which takes its part
            data = bench.scratch / f"{load.name}.perf"
            command = [perf, "record", "-q", "-e", "cpu-clock", "-F", str(SAMPLES_PER_S), "--call-graph"]
            recorder = Child(
                [*command, f"dwarf,{STACK_BYTES}", "-p", str(pid), "-o", str(data)], bench.scratch / "perf.log"
            )
            try:
                time.sleep(0.3)  # perf says nothing when it has begun; the load is much longer
                recorder.check_alive()
                bench.say(f"{load.name}: {bench.drive(server, load, load.timed, answer_bytes):,.0f}/s under perf")
            except BenchError as error:
                raise NotMeasured(f"perf cannot look at this process: {error}") from error
            finally:
                if recorder.process.poll() is None:
                    recorder.process.send_signal(2)
                    recorder.process.wait(COMMAND_S)
            found[load.name] = Times(ns, *stacks.count(stacks.read(_script(perf, data))))
    finally:
        child.kill()
    return found


def _script(perf: str, data: Path) -> list[str]:
    command = [perf, "script", "--no-inline", "-i", str(data), "-F", "comm,tid,ip,sym,dso"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S)
    if done.returncode:
        raise NotMeasured(f"perf script: {done.stderr.strip()}")
    return done.stdout.splitlines()


def count_stages(bench: Bench, loads: tuple[Load, ...]) -> dict[str, Counter[str]]:
    """Instructions of the loop's thread, by stage and request, under callgrind. A busy machine does not change them."""
    valgrind, control = _tool("valgrind", "valgrind"), _tool("callgrind_control", "valgrind")
    out = bench.scratch / "callgrind"
    prefix = [
        valgrind,
        "-q",
        "--tool=callgrind",
        "--instr-atstart=no",
        "--separate-threads=yes",
        f"--callgrind-out-file={out}",
    ]
    found = {}
    server, answer_bytes = bench.start(prefix, "--inline")
    child = server.own_child()
    pid = str(child.process.pid)

    def tell(*command: str) -> None:
        subprocess.run([control, *command, pid], check=True, capture_output=True, timeout=COMMAND_S)

    try:
        bench.drive(server, loads[0], 2_000, answer_bytes)
        tell("-i", "on")
        for number, load in enumerate(loads, 1):
            bench.drive(server, load, load.counted // 8, answer_bytes)
            tell("-z")
            rate = bench.drive(server, load, load.counted, answer_bytes)
            tell("-d")
            bench.say(f"{load.name}: {rate:,.0f}/s under callgrind")
            dump = Dump(Path(f"{out}.{number}-01").read_text().splitlines())
            found[load.name] = Counter({name: round(n / load.counted) for name, n in dump.by_stage().items()})
    finally:
        child.kill()
    return found


def _tool(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise NotMeasured(f"{name} is not installed (Debian: apt-get install {package})")
    return path
