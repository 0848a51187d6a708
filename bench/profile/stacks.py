"""Samples of perf with their stacks: `perf script` read, counted by stage, folded for the flame graph."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from bench.profile.stages import OTHER, stage_of

Frame = tuple[str, str]  # symbol, file

_FRAME = re.compile(r"^\s+[0-9a-f]+ (.+) \(([^()]*|\(.*\)|.*)\)$")
_PREFIX = re.compile(r"^__pyx_\w*?gateway_6native_\d*")
_RUN = re.compile(r"(?<=_)\d+(?=[A-Za-z])")


def read(lines: Iterable[str]) -> Iterator[list[Frame]]:
    """Each sample's stack, innermost first."""
    stack: list[Frame] = []
    for line in lines:
        found = _FRAME.match(line)
        if found:
            symbol = found[1].partition("+0x")[0]
            stack.append((symbol, found[2].rpartition("/")[2]))
        elif not line.strip() and stack:
            yield stack
            stack = []
    if stack:
        yield stack


def stage(stack: list[Frame]) -> str:
    """Of the innermost frame that stands for one."""
    for symbol, file in stack:
        name = stage_of(symbol, file)
        if name is not None:
            return name
    return OTHER


def count(stacks: Iterable[list[Frame]]) -> tuple[Counter[str], Counter[tuple[str, ...]]]:
    """Samples by stage; and by (stage, ...functions from the stage inwards), for the picture."""
    stages: Counter[str] = Counter()
    folded: Counter[tuple[str, ...]] = Counter()
    for stack in stacks:
        name = stage(stack)
        stages[name] += 1
        inwards: list[str] = []
        for symbol, file in stack:
            inwards.append(shown(symbol, file))
            if stage_of(symbol, file) == name:
                break
        else:
            inwards = inwards[:1]
        folded[name, *reversed(inwards)] += 1
    return stages, folded


def shown(symbol: str, file: str) -> str:
    """A name that a person reads: `codec.parse_fields`, or the library where the symbol is stripped."""
    module = file.partition(".cpython")[0].removesuffix(".so")
    if symbol in ("[unknown]", "") or re.fullmatch(r"0x[0-9a-f]+", symbol):
        return f"[{module.partition('.so')[0]}]"
    if symbol.startswith("__pyx_"):
        plain = _RUN.sub("", re.sub(r"^__pyx_\w*?native_\d+", "", symbol).partition(".")[0])
        return plain.removeprefix(module + "_") and f"{module}: {plain.removeprefix(module + '_')}"
    return symbol.partition("@")[0]
