"""Sums of facts, by version and by the hour in which the answer was asked for: what is shown of how a version does.

outcome      n of reports, by status; of those without a right token the model is ""
confusion    n, by "predicted\\tlabel" (a class as predicted, and what was true)
calibration  by bin of the confidence: n answers, `hits` right ones, `total` of the confidences
error        of a regression: n, `total` of the absolute errors, `squares`
value        by name: n, `total`, `squares`
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.feedback.report import LABEL, VALUE, Fact, Status

HOUR_S = 3600
BINS = 20
"""Of the confidence."""
MAX_CLASS = 64
"""Characters of a class in a table."""
OUTCOME, CONFUSION, CALIBRATION, ERROR = "outcome", "confusion", "calibration", "error"

Key = tuple[str, str, int, str, str]
"""Model, version, hour, kind, name."""


@dataclass(slots=True)
class Tally:
    n: int = 0
    hits: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, n: int = 1, hits: int = 0, value: float = 0.0) -> None:
        self.n += n
        self.hits += hits
        self.total += value
        self.squares += value * value


Tallies = dict[Key, Tally]


def hour_of(at_s: float) -> int:
    return int(at_s // HOUR_S)


def of_facts(facts: Iterable[Fact]) -> Tallies:
    """Each fact is new: nobody has counted it."""
    found: Tallies = {}
    for fact in facts:
        where = (fact.model, fact.answered, hour_of(fact.arrived_at))
        if fact.kind == VALUE and fact.value is not None:
            _at(found, (*where, VALUE, fact.name)).add(value=fact.value)
        elif fact.kind == LABEL and fact.label is not None and fact.predicted is not None:
            is_right = fact.label == fact.predicted
            name = f"{_short(fact.predicted)}\t{_short(fact.label)}"
            _at(found, (*where, CONFUSION, name)).add(hits=is_right)
            if fact.score is not None and 0.0 <= fact.score <= 1.0:
                place = min(BINS - 1, int(fact.score * BINS))
                _at(found, (*where, CALIBRATION, str(place))).add(hits=is_right, value=fact.score)
        elif fact.kind == LABEL and fact.label is not None and fact.score is not None:
            try:
                error = abs(fact.score - float(fact.label))
            except ValueError:  # a class by name, for a version that predicts a number
                continue
            _at(found, (*where, ERROR, "")).add(value=error)
    return found


def count_outcome(tallies: Tallies, model: str, version: str, status: Status, now_s: float, n: int = 1) -> None:
    _at(tallies, (model, version, hour_of(now_s), OUTCOME, status.name.lower())).add(n)


def _at(tallies: Tallies, key: Key) -> Tally:
    found = tallies.get(key)
    if found is None:
        found = tallies[key] = Tally()
    return found


def _short(text: str) -> str:
    return text.replace("\t", " ")[:MAX_CLASS]
