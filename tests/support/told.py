"""Evidence as workers write it, made up: reports of a model `m` whose stable version is 1 and whose candidate is 2."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.control.evidence import KIND
from gateway.native import scales
from gateway.store import Report, Store, WorkerRecord

NOW_S = 1_700_000_000.0
N_COUNTERS = 9706

Cells = Mapping[int, int]


def varint(n: int) -> bytes:
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes([*out, n])


def encoded(stable: Cells, candidate: Cells) -> bytes:
    """The slow twin of Scales.to_bytes."""
    out, last = b"", -1
    for at, n in sorted({**stable, **{N_COUNTERS + at: n for at, n in candidate.items()}}.items()):
        if n:
            out += varint(at - last - 1) + varint(n)
            last = at
    return out


def side(
    n: int, failed: int = 0, broken: int = 0, latency: Cells | None = None, values: Cells | None = None
) -> dict[int, int]:
    """Counters of one arm: all its requests were judged."""
    found = {scales.DRAWN: n, scales.JUDGED: n, scales.FAILED: failed, scales.BROKEN: broken}
    found |= {scales.LATENCY.start + cell: count for cell, count in (latency or {}).items()}
    return found | {scales.values(0).start + cell: count for cell, count in (values or {}).items()}


def report(
    stable: Cells,
    candidate: Cells,
    *,
    incarnation: str = "w0",
    generation: int = 5,
    percent: float = 10.0,
    at_s: float = NOW_S,
    **head: Any,
) -> Report:
    units = round(percent * 100)
    head = {
        "generation": generation,
        "versions": ["1", "2"],
        "shares": [10_000 - units, units],
        "is_sticky": False,
        "columns": [["y"], ["y"]],
        "open": [0, 0],
        "facts": {},
        **head,
    }
    body = json.dumps(head).encode() + b"\n" + encoded(stable, candidate)
    return Report(KIND, "m", "", str(generation), body, at_s, incarnation)


def put(store: Store, *reports: Report) -> None:
    for each in reports:
        store.put_reports(each.incarnation, [each])


def worker(incarnation: str, generation: int = 5, *, fault: str = "", index: int = 0) -> WorkerRecord:
    faults = {"": fault} if fault else {}
    return WorkerRecord(
        incarnation, index, "here", 1, NOW_S - 100, NOW_S, 1, {"m": generation}, {}, faults, is_ready=True
    )


def workers(store: Store, *records: WorkerRecord) -> Sequence[WorkerRecord]:
    for record in records:
        store.report_worker(record)
    return records
