"""What a measurement says: as JSON for machines, as lines for people, and against an earlier one."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gateway.errors import Code, ConfigError
from gateway.loadtest.check import Verdict
from gateway.loadtest.measure import Measurement, Shape

FORMAT = 1
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
NEAR_CEILING = 0.8
"""Above this share of it, it may be the generator that is measured."""


def as_json(
    url: str, model: str, shape: Shape, measured: Measurement, verdict: Verdict | None, ceiling_per_s: float | None
) -> dict[str, Any]:
    """The format that --save writes and --compare reads."""
    latency = {name: _number(measured.quantile_us(q)) for name, q in QUANTILES.items()}
    latency["max"] = _number(measured.quantile_us(1.0))
    return {
        "format": FORMAT,
        "url": url,
        "model": model,
        "loop": "closed" if shape.rate_per_s is None else "open",
        **asdict(shape),
        "seconds": round(measured.seconds, 3),
        "requests_per_s": round(measured.requests_per_s, 1),
        "ceiling_per_s": round(ceiling_per_s, 1) if ceiling_per_s else None,
        "share_of_ceiling": round(measured.requests_per_s / ceiling_per_s, 4) if ceiling_per_s else None,
        "ok": measured.ok,
        "failed": {Code(code).name: count for code, count in sorted(measured.statuses.items()) if code},
        "lost": measured.losses,
        "not_sent": measured.waiting,
        "latency_us": latency,
        "answers": verdict
        and {
            "right": verdict.right,
            "wrong": verdict.wrong,
            "unchecked": verdict.unchecked,
            "by_version": verdict.by_version,
            "example": verdict.example,
        },
        "bytes_in": measured.bytes_in,
        "bytes_out": measured.bytes_out,
        "generator_late_max_us": measured.late_max_us,
    }


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """For a person."""
    loop = "closed loop" if result["loop"] == "closed" else f"open loop at {result['rate_per_s']:,.0f}/s"
    warm = f" after {result['warmup_s']:g} s of warm-up" if result["warmup_s"] else ""
    yield (
        f"{result['model']} at {result['url']}: {result['connections']} x {result['streams']} (connections x streams), "
        f"{loop}, {result['seconds']:.1f} s{warm}"
    )
    failed = sum(result["failed"].values())
    ended = f"{result['ok']:,} answered OK, {failed:,} failed, {lost(result):,} lost"
    yield f"  {result['requests_per_s']:,.0f} requests/s   {ended}"
    for name, count in result["failed"].items():
        yield f"    {count:,} failed with {name}"
    for reason, count in result["lost"].items():
        yield f"    {count:,} lost: {reason}"
    if result["not_sent"]:
        yield f"    {result['not_sent']:,} were due and could not be sent: every stream was waiting for its answer"
    latency = result["latency_us"]
    yield "  latency   " + "   ".join(f"{name} {_duration(latency[name])}" for name in (*QUANTILES, "max"))
    answers = result["answers"]
    if answers is None:
        yield "  answers were not checked (--no-check)"
    else:
        unchecked = f", {answers['unchecked']:,} not checked" if answers["unchecked"] else ""
        versions = ", ".join(f"version {v or '?'} {count:,}" for v, count in sorted(answers["by_version"].items()))
        checked = f"{answers['right']:,} right, {answers['wrong']:,} wrong{unchecked}"
        yield f"  answers   {checked} (warm-up included); {versions}"
        if answers["example"]:
            yield f"    {answers['example']}"
    if result["share_of_ceiling"]:
        share = result["share_of_ceiling"]
        near = "; so near, it may be the generator that is measured" if share > NEAR_CEILING else ""
        reach = f"this generator reaches {result['ceiling_per_s']:,.0f}/s here"
        yield f"  ceiling   {reach}: the server is at {share:.2f} of it{near}"
    if result["loop"] == "open":
        yield f"  generator at most {_duration(result['generator_late_max_us'])} late itself"


def lost(result: Mapping[str, Any]) -> int:
    return int(sum(result["lost"].values()) + result["not_sent"])


def read(path: Path) -> dict[str, Any]:
    """A kept result. ConfigError names the file and what is wrong with it."""
    try:
        result = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"--compare {path}: {str(error.strerror).lower()}") from None
    except ValueError as error:
        raise ConfigError(f"--compare {path}: is no JSON: {error}") from None
    if not isinstance(result, dict) or result.get("format") != FORMAT or "requests_per_s" not in result:
        raise ConfigError(f"--compare {path}: is no result of gateway bench; write one with --save FILE")
    return result


def compared(now: Mapping[str, Any], before: Mapping[str, Any]) -> tuple[float, str]:
    """now / before, and a sentence. Shares of the ceiling where both have one: they hold between machines, rates do
    not. ConfigError when the two are not the same load.
    """
    for name in ("loop", "model", "connections", "streams", "rate_per_s"):
        if now[name] != before.get(name):
            raise ConfigError(
                f"--compare: {name}: got {now[name]}, the baseline has {before.get(name)}; measure the same load"
            )
    name = "share_of_ceiling" if now["share_of_ceiling"] and before.get("share_of_ceiling") else "requests_per_s"
    ratio = now[name] / before[name] if before[name] else math.inf
    what = "share of the ceiling" if name == "share_of_ceiling" else "requests/s"
    was, is_ = (
        (f"{value[name]:,.2f}" if name == "share_of_ceiling" else f"{value[name]:,.0f}") for value in (before, now)
    )
    p99_before, p99_now = before["latency_us"]["p99"], now["latency_us"]["p99"]
    return (
        ratio,
        f"{what} {is_}, was {was}: {ratio:.2f} of the baseline; p99 {_duration(p99_now)}, was {_duration(p99_before)}",
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _duration(us: float | None) -> str:
    if us is None:
        return "-"
    return f"{us:.0f} us" if us < 1000 else f"{us / 1000:.2f} ms" if us < 1e6 else f"{us / 1e6:.2f} s"
