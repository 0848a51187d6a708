"""A kept run as Markdown: the README's section between its two marks, and the whole table beside the result."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import results
from bench.peers.catalogue import PEERS
from bench.peers.record import FOLDER, Record
from bench.peers.table import duration, failed, limit_per_s, load_words, machine, merged, wander
from bench.peers.works import ALL

README = Path(__file__).parent.parent.parent / "README.md"
BEGIN, END = "<!-- peers: made by `python -m bench.peers --report`, do not edit -->", "<!-- peers end -->"
COMPARED_AT = 128
TARGETS = (
    ("triton", "gRPC", "small", 8.0),
    ("mlserver", "gRPC", "small", 60.0),
    ("mlserver", "REST", "small", 10.0),
    ("triton", "gRPC", "image", 2.0),
)
"""How many times as many requests as that peer were promised."""


def write_section(measured: Record, source: Path) -> bool:
    """Into the README, when it has the marks."""
    text = README.read_text()
    if BEGIN not in text or END not in text:
        print(f"README.md has no line {BEGIN!r}: its section is not written")
        return False
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text("\n".join([before + BEGIN, "", *section(measured, source), "", END + after]))
    return True


def section(measured: Record, source: Path) -> Iterator[str]:
    """What the README shows."""
    rows = list(merged(measured))
    where = os.path.relpath(source.resolve(), README.parent)
    noise = wander(measured)
    wrong = sum(row["wrong"] for row in measured.rows)
    checked = wrong + sum(row["right"] for row in measured.rows)
    unchecked = sum(row["unchecked"] or 0 for row in measured.rows)
    yield (
        f"{machine(measured)}. Everything on those cores, the load generator too. Answers were compared with ONNX "
        f"Runtime's own: **{wrong:,} of {checked:,} were wrong**"
        + (f"; {unchecked:,} more were not compared." if unchecked else ".")
    )
    if noise is not None:
        yield (
            f"What was measured twice, first and last, differs by {100 * noise:.0f} % (median): smaller differences "
            "are none."
        )
    yield f"[Result]({where}), [every row]({os.path.relpath(FOLDER / 'table.md', README.parent)})."
    yield ""
    yield from _small(rows, measured)
    yield ""
    yield from _others(rows)
    yield ""
    yield from _promises(rows)
    yield ""
    for name, words in (("throughput", "Requests a second against p99"), ("offered", "Latency under a fixed load")):
        yield f"![{words}, all peers](bench/peers/results/{name}.svg)"
        yield ""
    if (results.FOLDER / "history.svg").exists():
        yield "![Share of the limit of HTTP/2 over our own versions](bench/results/history.svg)"


def _small(rows: list[dict[str, Any]], measured: Record) -> Iterator[str]:
    yield (
        f"30 floats, MLP 30-128-128-1, {COMPARED_AT} requests at once; CPU and memory of all processes of a peer "
        "(shared pages counted once); the last column in an open loop at 80 % of the peer's own peak:"
    )
    yield ""
    yield "| | requests/s | of the limit | p50 | p99 | CPU s per 1,000 | memory | failed | p99 at 80 % |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    shown = [row for row in rows if row["work"] == "small" and row["at_once"] == COMPARED_AT]
    for row in sorted(shown, key=lambda row: (not PEERS[row["peer"]].runs_models, -row["requests_per_s"])):
        limit = limit_per_s(measured, row)
        at_80 = next((each for each in rows if _same(each, row) and each["of_peak"] == 0.8), None)
        bold = "**" if row["peer"] == "gateway" else ""
        share = row["requests_per_s"] / limit if limit else None
        yield (
            f"| {bold}{_name(row)}{bold} | {bold}{row['requests_per_s']:,.0f}{bold} | "
            f"{f'{share:.2g}' if share else ''} | {duration(row['latency_us']['p50'])} | "
            f"{duration(row['latency_us']['p99'])} | {row['cpu_s_per_1000'] or 0:.3f} | "
            f"{row['pss_bytes'] / 1e6:,.0f} MB | {failed(row):,} | "
            f"{duration(at_80['latency_us']['p99']) if at_80 else ''} |"
        )


def _others(rows: list[dict[str, Any]]) -> Iterator[str]:
    works = [work for work in ALL if work.name != "small" and any(row["work"] == work.name for row in rows)]
    if not works:
        return
    yield "The other works, each peer at its best concurrency, requests/s (and how many at once):"
    yield ""
    yield "| | " + " | ".join(work.title for work in works) + " |"
    yield "| --- |" + " --- |" * len(works)
    for peer in PEERS.values():
        for protocol in peer.protocols:
            cells = []
            for work in works:
                key = (peer.name, protocol, work.name)
                mine = [row for row in rows if row["at_once"] and (row["peer"], row["protocol"], row["work"]) == key]
                best = max(mine, key=lambda row: row["requests_per_s"], default=None)
                cells.append(f"{best['requests_per_s']:,.0f} ({best['at_once']})" if best else "")
            if any(cells):
                bold = "**" if peer.name == "gateway" else ""
                yield f"| {bold}{peer.title}, {protocol}{bold} | " + " | ".join(cells) + " |"


def _promises(rows: list[dict[str, Any]]) -> Iterator[str]:
    """What was promised beside what came."""
    yield "| promised | at 1 | at 16 | at 128 | at 1,024 at once |"
    yield "| --- | --- | --- | --- | --- |"
    for name, protocol, work, target in TARGETS:
        cells = []
        for at_once in (1, 16, 128, 1024):
            mine, other = (_rate(rows, who, protocol, work, at_once) for who in ("gateway", name))
            limit = _rate(rows, "limit", "gRPC", work, at_once)
            cells.append(_kept(mine / other, target, limit and limit / other) if mine and other else "")
        title = next(each.title for each in ALL if each.name == work)
        yield f"| {title}, {protocol}: {target:.0f} times {PEERS[name].title} | " + " | ".join(cells) + " |"


def _kept(ratio: float, target: float, limit: float | None) -> str:
    """The ratio, whether it is what was promised, and the limit's own where not even that is."""
    if ratio >= target:
        return f"{ratio:.1f}"
    beyond = f", the limit itself {limit:.1f}" if limit and limit < target else ""
    return f"{ratio:.1f} **missed**{beyond}"


def write_table(measured: Record, source: Path) -> Path:
    """Every row, the settings of every peer, and what could not be measured."""
    path = source.with_name("table.md")
    path.write_text("\n".join(_whole(measured, source)) + "\n")
    return path


def _whole(measured: Record, source: Path) -> Iterator[str]:
    yield f"# Peers side by side\n\n{machine(measured)}; [{source.name}]({source.name}).\n"
    yield "| peer | version | settings |\n| --- | --- | --- |"
    for about in measured.peers.values():
        link = about["link"]
        target = link if link.startswith("http") else f"../../../{link}"
        yield f"| [{about['title']}]({target}) | {about['version']} | {about['settings']} |"
    for work in ALL:
        yield f"\n## {work.title}\n"
        yield (
            "| load | peer | requests/s | of limit | p50 | p90 | p99 | p99.9 | CPU s/1000 | RSS | PSS | right | wrong "
            "| not checked | failed |"
        )
        yield "| --- " * 15 + "|"
        mine = [row for row in measured.rows if row["work"] == work.name]
        for row in sorted(mine, key=lambda row: (row["at_once"] or 10_000, row["of_peak"] or 0)):
            latency, limit = row["latency_us"], limit_per_s(measured, row)
            cost = row["cpu_s_per_1000"]
            cells = [
                load_words(row).partition(", ")[2], _name(row) + (" (again)" if row["time"] else ""),
                f"{row['requests_per_s']:,.0f}", f"{row['requests_per_s'] / limit:.3f}" if limit else "",
                *(duration(latency[name]) for name in ("p50", "p90", "p99", "p99.9")),
                "" if cost is None else f"{cost:.4f}", f"{row['rss_bytes'] / 1e6:,.0f} MB",
                f"{row['pss_bytes'] / 1e6:,.0f} MB", f"{row['right']:,}", f"{row['wrong']:,}",
                "" if row["unchecked"] is None else f"{row['unchecked']:,}", f"{failed(row):,}",
            ]  # fmt: skip
            yield "| " + " | ".join(cells) + " |"
    if measured.problems:
        yield "\n## Not measured\n"
        for name, reason in measured.problems.items():
            yield f"- {name}: {reason}"


def _name(row: dict[str, Any]) -> str:
    peer = PEERS[row["peer"]]
    return f"{peer.title}, {row['protocol']}" if len(peer.protocols) > 1 else peer.title


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one[key] == other[key] for key in ("peer", "protocol", "work"))


def _rate(rows: list[dict[str, Any]], peer: str, protocol: str, work: str, at_once: int) -> float | None:
    for row in rows:
        if (row["peer"], row["protocol"], row["work"], row["at_once"]) == (peer, protocol, work, at_once):
            return float(row["requests_per_s"])
    return None
