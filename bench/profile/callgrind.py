"""Instructions by stage from a dump of callgrind.

Callgrind knows who called whom and what it cost, not whole stacks: what a function that stands for no stage cost is
divided among its callers as its calls from them cost.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

from bench.profile.stages import OTHER, stage_of

Function = tuple[str, str]  # symbol, object
_ROUNDS = 60  # the longest chain of callers that is followed

_REFERENCE = re.compile(r"\((\d+)\)(?: (.*))?$")


class Dump:
    """What one dump says: own instructions of each function, and those of the calls between them."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.own: Counter[Function] = Counter()
        self.calls: Counter[tuple[Function, Function]] = Counter()
        self.times: Counter[tuple[Function, Function]] = Counter()
        self._names: dict[str, dict[str, str]] = defaultdict(dict)
        self._read(lines)

    def _name(self, kind: str, text: str) -> str:
        found = _REFERENCE.match(text)
        if found is None:
            return text
        if found[2] is not None:
            self._names[kind][found[1]] = found[2]
        return self._names[kind].get(found[1], "?")

    def _read(self, lines: Iterable[str]) -> None:
        file = called_file = symbol = ""
        function = called = ("?", "?")
        times = 0
        is_call = False
        for line in lines:
            key, _, value = line.rstrip("\n").partition("=")
            if key == "ob":
                file = called_file = self._name("ob", value)
            elif key == "cob":
                called_file = self._name("ob", value)
            elif key == "fn":
                symbol = self._name("fn", value)
                function, called_file = (symbol.partition("'")[0], file), file
            elif key == "cfn":
                called = (self._name("fn", value).partition("'")[0], called_file)
            elif key == "calls":
                times, is_call = int(value.split()[0]), True
            elif line[:1] in "+-*0123456789" and line.strip():
                cost = int(line.split()[1])
                if is_call:
                    self.calls[function, called] += cost
                    self.times[function, called] += times
                    called_file, is_call = file, False
                else:
                    self.own[function] += cost

    def by_stage(self) -> Counter[str]:
        """Instructions of each stage; they add up to all that were counted."""
        callers: dict[Function, dict[Function, int]] = defaultdict(dict)
        for (caller, called), cost in self.calls.items():
            if caller != called and cost:
                callers[called][caller] = cost
        shares: dict[Function, dict[str, float]] = {}
        unsettled = []
        for function in self.own:
            name = stage_of(*function)
            if name is not None:
                shares[function] = {name: 1.0}
            else:
                unsettled.append(function)
        for function in {caller for by in callers.values() for caller in by} - set(self.own):
            name = stage_of(*function)
            shares[function] = {name or OTHER: 1.0}
        for _ in range(_ROUNDS):
            renewed = {function: _mixed(callers.get(function, {}), shares) for function in unsettled}
            if all(shares.get(function) == renewed[function] for function in unsettled):
                break
            shares.update(renewed)
        stages: Counter[str] = Counter()
        for function, cost in self.own.items():
            told = shares[function]
            for name, share in told.items():
                stages[name] += round(cost * share)
            stages[OTHER] += round(cost * max(0.0, 1 - sum(told.values())))
        return stages


def _mixed(callers: dict[Function, int], shares: dict[Function, dict[str, float]]) -> dict[str, float]:
    total = sum(callers.values())
    mixed: dict[str, float] = defaultdict(float)
    for caller, cost in callers.items():
        for name, share in shares.get(caller, {}).items():
            mixed[name] += share * cost / total
    return dict(mixed)
