"""The search: every fixed setting in turn, the good ones again, then the best of them and eager alone, turn by turn.

All settings of a work are models of one gateway, so that they share its process and its time. The final pairs are other
runs than those that chose: the best of twenty noisy figures looks better than it is. In a closed loop the mean latency
is requests in flight / requests per second, so that one figure says both.
"""

from __future__ import annotations

import random
import shutil
import statistics
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import h2load, open_loop, payloads
from bench.context import Context
from bench.models import IMAGE_CONV, SMALL_MLP, WIDE_MLP, Model
from bench.server import Server, gateway

MAX_OPEN_PER_S = 20_000  # above it the open loop's generator shows itself
OPEN_SHARE = 0.6  # of eager's peak
OPEN = "open loop"
FIRST_SHARE = 0.25  # of eager's rate: what a setting that has not run yet is sent
KEEP = (0.7, 0.85, 0.9)  # of the best fixed setting so far: who is below after that round is given up


@dataclass(frozen=True, slots=True)
class Setting:
    """None: eager, the gateway's default."""

    rows: int | None = None
    delay_us: int = 0

    @property
    def name(self) -> str:
        return "eager" if self.rows is None else f"batch {self.rows}, delay {self.delay_us} us"

    def model(self, work: Model) -> str:
        return f"{work.name}_eager" if self.rows is None else f"{work.name}_b{self.rows}_d{self.delay_us}"

    def yaml(self) -> str:
        if self.rows is None:
            return ""
        return f"batching: {{max_batch_size: {self.rows}, max_delay_us: {self.delay_us}, linger: false}}\n"


EAGER = Setting()


@dataclass(frozen=True, slots=True)
class Work:
    """A model, its loads (connections, streams; 0, 0 is the open loop), and the settings that are tried."""

    model: Model
    loads: tuple[tuple[int, int], ...]
    rows: tuple[int, ...]
    delays_us: tuple[int, ...]

    def settings(self) -> list[Setting]:
        fixed = [Setting(rows, delay) for rows in self.rows for delay in self.delays_us if rows > 1 or not delay]
        return [EAGER, *fixed]


WORKS = (
    Work(SMALL_MLP, ((8, 16), (64, 1), (4, 4)), (1, 8, 16, 32, 64, 128), (0, 250, 1000, 3000)),
    Work(WIDE_MLP, ((8, 16), (64, 1), (4, 4), (0, 0)), (1, 8, 16, 32, 64, 128), (0, 250, 1000, 3000)),
    Work(IMAGE_CONV, ((4, 4),), (1, 2, 4, 8, 16), (0, 1000, 3000)),
)


@dataclass(slots=True)
class Found:
    """`eager` and `best`: the final pairs, requests/s, or microseconds of p99 in the open loop."""

    work: str
    load: str
    unit: str
    best_setting: str
    eager: list[float] = field(default_factory=list)
    best: list[float] = field(default_factory=list)
    searched: dict[str, float] = field(default_factory=dict)  # medians of the search, eager among them

    @property
    def ratio(self) -> float:
        """Eager's figure as a share of the best fixed one's, per pair; above 1 eager is the better, in both loops."""
        pairs = zip(self.eager, self.best, strict=True)
        return statistics.median(b / a if self.unit == "us" else a / b for a, b in pairs)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"ratio": self.ratio}


def run(
    context: Context, work: Work, seconds: float, rounds: int, pairs: int, done: Collection[str] = ()
) -> Iterator[Found]:
    """One result for each load of `work` that is not among `done`."""
    loads = [load for load in work.loads if load_name(load) not in done]
    if not loads:
        return
    root = context.scratch / f"batching-{work.model.name}"
    bodies: dict[Setting, tuple[Path, bytes]] = {}
    made = work.model.make().SerializeToString()
    for setting in work.settings():
        name = setting.model(work.model)
        (root / name / "1").mkdir(parents=True)
        (root / name / "1" / "model.onnx").write_bytes(made)
        (root / name / "model.yaml").write_text(setting.yaml())
        body = payloads.grpc_frame(payloads.infer_request(name, {"input": work.model.rows(1)}))
        bodies[setting] = context.body_file(name, body), body
    context.say(f"{work.model.name}: {len(bodies)} settings, {len(loads)} loads")
    try:
        with gateway(context.gateway, context.scratch, (), models_dir=root) as server:
            for load in loads:
                yield _search(context, work, server, bodies, load, seconds, rounds, pairs)
    finally:
        shutil.rmtree(root)


def load_name(load: tuple[int, int]) -> str:
    return OPEN if load == (0, 0) else f"{load[0]}x{load[1]}"


def _search(
    context: Context,
    work: Work,
    server: Server,
    bodies: dict[Setting, tuple[Path, bytes]],
    load: tuple[int, int],
    seconds: float,
    rounds: int,
    pairs: int,
) -> Found:
    is_open = load == (0, 0)
    peak = _probe(server, bodies[EAGER][0], *(load if not is_open else (8, 16)))
    rate = min(MAX_OPEN_PER_S, peak * OPEN_SHARE)
    rates: dict[Setting, float] = {}  # each has as much time, not as many requests: the slowest take ten times as long

    def measure(setting: Setting, seed: int) -> float:
        file, body = bodies[setting]
        if is_open:
            return open_loop.run(server.port, body, rate, seconds, seed=seed).p99_us
        least = 4 * load[0] * load[1]
        requests = max(least, int(rates.get(setting, peak * FIRST_SHARE) * seconds))
        result = h2load.run(server.port, file, *load, requests)
        result.check_statuses(setting.name)
        rates[setting] = result.requests_per_s
        return result.requests_per_s

    name = f"open loop, {rate:,.0f}/s" if is_open else load_name(load)
    shuffled = random.Random(1)
    seen: dict[Setting, list[float]] = {setting: [] for setting in bodies}
    going = list(bodies)
    for round_ in range(rounds):
        shuffled.shuffle(going)
        for setting in going:
            seen[setting].append(measure(setting, round_))
        medians = {setting: statistics.median(figures) for setting, figures in seen.items()}
        going = still_good(medians, going, is_open, KEEP[min(round_, len(KEEP) - 1)])
        context.say(f"{work.model.name} {name} round {round_ + 1}/{rounds}: {len(going)} settings left")
    best = (min if is_open else max)((s for s in going if s != EAGER), key=lambda setting: medians[setting])
    found = Found(work.model.name, name, "us" if is_open else "/s", best.name)
    found.searched = {setting.name: round(figure, 1) for setting, figure in medians.items()}
    for pair in range(pairs):
        for setting in (EAGER, best) if pair % 2 else (best, EAGER):
            (found.eager if setting is EAGER else found.best).append(measure(setting, 1000 + pair))
    context.say(f"{found.work} {name}: best fixed is {best.name}; eager has {found.ratio:.3f} of it")
    return found


def still_good(medians: dict[Setting, float], going: list[Setting], is_latency: bool, share: float) -> list[Setting]:
    """Those of `going` within `share` of the best fixed one, and eager: the others get no more rounds."""
    fixed = [medians[setting] for setting in going if setting != EAGER]
    if is_latency:
        return [s for s in going if s == EAGER or medians[s] * share <= min(fixed)]
    return [s for s in going if s == EAGER or medians[s] >= share * max(fixed)]


def _probe(server: Server, file: Path, connections: int, streams: int) -> float:
    """Requests a second, roughly."""
    rate = h2load.run(server.port, file, connections, streams, 10 * connections * streams).requests_per_s
    return h2load.run(server.port, file, connections, streams, max(100, int(rate / 3))).requests_per_s
