"""Real data: the profile from one part, traffic from another that differs, and what is found.

Rows are drawn with replacement, 400 requests a minute. `held out` is the other half of the same part: what should stay
silent. The data sets are those that scikit-learn ships.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gateway.monitoring import drift
from gateway.monitoring.baseline import Baseline
from gateway.monitoring.profile import Profile
from gateway.monitoring.windows import MinuteTile
from tests.support import drifting

MINUTES = 60
REQUESTS = 400
START_S = drifting.START_S


@dataclass(frozen=True)
class Row:
    data: str
    served: str
    rows_profile: int
    rows_served: int
    columns: int
    pages_after: int | None
    """Minutes; None: silent for an hour."""
    named: tuple[str, ...]
    worst: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def run(rng: np.random.Generator, say: Callable[[str], None]) -> list[Row]:
    from sklearn import datasets

    rows: list[Row] = []
    diabetes = datasets.load_diabetes(scaled=False)
    age = diabetes.data[:, diabetes.feature_names.index("age")]
    young = np.flatnonzero(age < 50)
    rows += _study(rng, say, "diabetes", diabetes.data, diabetes.feature_names, young,
                   {"patients of 50 and more": np.flatnonzero(age >= 50)})  # fmt: skip
    cancer = datasets.load_breast_cancer()
    rows += _study(rng, say, "breast cancer", cancer.data, cancer.feature_names, np.arange(len(cancer.data)),
                   {"malignant only": np.flatnonzero(cancer.target == 0)})  # fmt: skip
    digits = datasets.load_digits()
    used = np.flatnonzero(digits.data.std(0) > 0)
    names = [f"pixel {at}" for at in used]
    early = np.arange(1000)
    rows += _study(rng, say, "digits", digits.data[:, used], names, early,
                   {"other writers (the last 700 of 1,797)": np.arange(1097, 1797),
                    "only 6 to 9, same writers": early[digits.target[early] > 5]})  # fmt: skip
    return rows


def _study(
    rng: np.random.Generator, say: Callable[[str], None], name: str, data: Any, names: Sequence[str], part: Any,
    served: dict[str, Any],
) -> list[Row]:  # fmt: skip
    part = rng.permutation(part)
    train, held_out = np.array_split(part, 2)
    columns = [drifting.numeric(str(each), data[train, at], at) for at, each in enumerate(names)]
    profile = drifting.profile(columns, model=name)
    found = []
    for label, rows in {"the profile's own rows": train, "held out, same part": held_out, **served}.items():
        say(f"{name}: {label}")
        found.append(_serve(rng, profile, data, names, rows, name, label, len(train)))
    return found


def _serve(
    rng: np.random.Generator,
    profile: Profile,
    data: Any,
    names: Sequence[str],
    rows: Any,
    name: str,
    label: str,
    n: int,
) -> Row:
    baseline, state = Baseline.of(profile), None
    for minute in range(MINUTES):
        drawn = data[rng.choice(rows, size=REQUESTS)]
        counts = {each: drifting.count(profile.columns[at], drawn[:, at]) for at, each in enumerate(map(str, names))}
        tile = MinuteTile(START_S + 60 * minute, "w", counts, REQUESTS)
        report, state = drift.assess(baseline, [tile], state, START_S + 60 * minute + 71)
        if report.pages:
            blamed = tuple(dict.fromkeys((*report.pages, *report.named)))
            worst = report.columns[0]
            return Row(name, label, n, len(rows), len(names), minute + 1, blamed, f"{worst.name}: {worst.sentence}")
    worst = report.columns[0]
    return Row(name, label, n, len(rows), len(names), None, (), f"{worst.name}: {worst.sentence}")
