"""Feedback as a rollout reads it: each request once, on the arm it was drawn for, however the reports come in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.control import feedback
from gateway.control.feedback import LEVELS, evidence
from gateway.evidence.counts import BinnedStage, Stage
from gateway.evidence.paired import PairStage
from gateway.feedback.report import GROUPS, LABEL, VALUE, Fact
from gateway.rollout.baseline import Baseline
from gateway.rollout.evidence import Evidence
from gateway.rollout.judge import judge
from gateway.rollout.plan import Plan
from gateway.store import Report, Store
from tests.store.test_feedback import fact
from tests.support.rollouts import plan

RAILS = {
    "sold": {"kind": "metric", "centre": 0.2, "tolerated": 0.05},
    "rating": {"kind": "metric", "centre": 3, "low": 1, "high": 5, "tolerated": 0.2},
    "fair": {"kind": "fairness", "event": "is refused", "groups": ["women", "men"]},
    "right": {"kind": "correctness"},
    "positive": {"kind": "fairness", "event": "class 1", "groups": ["women", "men"]},
}
STAGES = {3: (0, 0.0), 5: (1, 0.05), 6: (2, 0.25), 9: (3, 1.0)}


@dataclass(frozen=True)
class Watched:
    plan: Plan
    stages: Mapping[int, tuple[int, float]]
    model: str = "m"
    candidate: str = "2"
    started_s: float = 0.0


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store.open(f"sqlite:///{tmp_path}/gateway.db") as store:
        yield store


@pytest.fixture
def watched() -> Watched:
    return Watched(plan(guardrails=RAILS), STAGES)


def put(store: Store, *facts: Fact) -> None:
    store.put_feedback(facts, lambda _: {})


def drawn(number: int, generation: int, arm: str, **fields: Any) -> Fact:
    return fact(number, stage=generation, arm=arm, **fields)


def random_facts(rng: np.random.Generator, n: int) -> list[Fact]:
    found = []
    for number in range(n):
        generation = int(rng.choice([3, 5, 6, 9, 10]))
        name = str(rng.choice(["sold", "rating", "is refused", "other"]))
        kind = str(rng.choice([VALUE, VALUE, VALUE, GROUPS, LABEL]))
        found.append(
            replace(
                drawn(number, generation, str(rng.choice(["stable", "candidate", "pinned"]))),
                id=rng.bytes(14),
                kind=kind,
                name=name if kind == VALUE else "",
                value=float(rng.integers(0, 6)) / 2.0 if kind == VALUE else None,
                predicted=str(rng.integers(0, 2)) if rng.uniform() < 0.8 else None,
                row=int(rng.uniform() < 0.1),
                groups=str(rng.choice(["", '["men"]', '["men", "women"]', '["others"]'])),
                model=str(rng.choice(["m", "m", "m", "n"])),
                # keys that stay in one stage: which stage is read first is another matter
                unit=bytes([generation, int(rng.integers(0, 4))]) * 4 if rng.uniform() < 0.5 else None,
            )
        )
    return found


def counted(facts: Sequence[Fact], watched: Watched) -> Evidence:
    """The slow twin: all of it at once, by the words of the docstring."""
    bins: dict[str, dict[int, list[list[int]]]] = {"sold": {}, "rating": {}}
    groups: dict[str, dict[str, dict[int, list[list[int]]]]] = {
        n: {"women": {}, "men": {}} for n in ("fair", "positive")
    }
    seen: set[tuple[str, str, bytes]] = set()
    for f in facts:
        if f.model != "m" or f.stage not in watched.stages or f.arm not in ("stable", "candidate") or f.row:
            continue
        arm = ("stable", "candidate").index(f.arm)
        pi = watched.stages[f.stage][1]
        is_possible = pi > 0.0 if arm else pi < 1.0
        if f.kind == VALUE and f.name in bins and not (f.unit and ("", f.name, f.unit) in seen):
            seen |= {("", f.name, f.unit)} if f.unit else set()
            low, high = (0.0, 1.0) if f.name == "sold" else (1.0, 5.0)
            dither = int.from_bytes(f.id[:8], "little") / 2**64
            level = min(LEVELS, int(LEVELS * min(max((f.value - low) / (high - low), 0.0), 1.0) + dither))
            if is_possible:
                cells = bins[f.name].setdefault(f.stage, [[0] * (LEVELS + 1), [0] * (LEVELS + 1)])
                cells[arm][level] += 1
        for rail, counts, event in (
            ("fair", f.kind == VALUE and f.name == "is refused", bool(f.value)),
            ("positive", f.kind == GROUPS and f.predicted is not None, f.predicted == "1"),
        ):
            for group in ("men", "women"):
                if counts and f'"{group}"' in f.groups and not (f.unit and (rail, group, f.unit) in seen):
                    seen |= {(rail, group, f.unit)} if f.unit else set()
                    if is_possible:
                        cell = groups[rail][group].setdefault(f.stage, [[0, 0], [0, 0]])[arm]
                        cell[0] += 1
                        cell[1] += event
    stages = watched.stages
    return Evidence(
        pairs={"right": ()},
        bins={
            name: tuple(BinnedStage(*stages[g], tuple(s), tuple(c)) for g, (s, c) in sorted(found.items()))
            for name, found in bins.items()
        },
        groups={
            rail: {
                group: tuple(Stage(*stages[g], s[0], c[0], s[1], c[1]) for g, (s, c) in sorted(found.items()))
                for group, found in by_group.items()
            }
            for rail, by_group in groups.items()
        },
    )


@pytest.mark.parametrize("seed", range(4))
def test_however_the_reports_come_in_the_counts_are_those_of_all_at_once(
    seed: int, store: Store, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(feedback, "PAGE", 7)
    monkeypatch.setattr(feedback, "MAX_READ", 50)
    facts = random_facts(rng, 400)
    known: dict[int, tuple[int, float]] = {3: STAGES[3]}
    at = 0
    while at < len(facts):
        step = int(rng.integers(1, 120))
        put(store, *facts[at : at + step])
        at += step
        if rng.uniform() < 0.4:  # a stage is heard of when reports of it have long come in
            known |= {g: STAGES[g] for g in list(STAGES)[: len(known) + 1]}
        evidence(store, replace(watched, stages=known))
    for _ in range(20):
        found = evidence(store, watched)
    assert found == counted(facts, watched)


def test_a_sticky_key_is_one_unit_over_all_stages(store: Store, watched: Watched) -> None:
    sticky = [drawn(i, (5, 6)[i % 2], "stable", unit=bytes([i % 3]) * 8) for i in range(60)]
    put(store, *sticky, *(drawn(100 + i, 6, "stable") for i in range(5)))
    assert sum(stage.n_stable for stage in evidence(store, watched).bins["sold"]) == 3 + 5


def test_the_counts_are_what_the_judge_takes(store: Store, watched: Watched) -> None:
    rng = np.random.default_rng(0)
    worse = [
        drawn(i, 6, arm, id=rng.bytes(14), name="sold", value=float(rng.uniform() < share))
        for i in range(6000)
        for arm, share in [("candidate", 0.05) if rng.uniform() < 0.25 else ("stable", 0.2)]
    ]
    put(store, *worse)
    found = {v.name: v for v in judge(watched.plan, evidence(store, watched), Baseline()).guardrails}
    assert found["sold"].is_worse
    assert not found["rating"].is_worse


def test_a_plan_without_such_guardrails_asks_nobody(watched: Watched) -> None:
    class Untouched:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(name)

    assert evidence(Untouched(), replace(watched, plan=plan())) == Evidence()  # type: ignore[arg-type]


def test_a_backup_that_was_put_back_is_counted_anew(store: Store, watched: Watched, tmp_path: Path) -> None:
    put(store, *(drawn(i, 6, "stable", name="sold") for i in range(10)))
    assert evidence(store, watched).bins["sold"][0].n_stable == 10
    store.prune_feedback(1e12, 0)
    with store._write() as connection:
        connection.exec_driver_sql("DELETE FROM sqlite_sequence WHERE name = 'feedback'")
    put(store, *(drawn(i, 6, "stable", name="sold") for i in range(4)))
    assert evidence(store, watched).bins["sold"][0].n_stable == 4


def test_a_value_between_two_levels_is_counted_at_either_so_that_the_mean_is_right(
    store: Store, watched: Watched
) -> None:
    rng = np.random.default_rng(5)
    put(store, *(drawn(i, 6, "stable", id=rng.bytes(14), name="sold", value=0.1234) for i in range(4000)))
    (stage,) = evidence(store, watched).bins["sold"]
    mean = sum(level * n for level, n in enumerate(stage.stable)) / LEVELS / 4000
    assert mean == pytest.approx(0.1234, abs=4 * 0.005 / 4000**0.5)
    assert [level for level, n in enumerate(stage.stable) if n] == [12, 13]


def link(store: Store, key: str, at: float, links: Mapping[bytes, str | None], version: str = "2") -> None:
    body = json.dumps({id.hex(): predicted for id, predicted in links.items()}).encode()
    store.put_reports("w", [Report("link", "m", version, key, body, at)])


def label(number: int, predicted: str, true: str, **fields: Any) -> Fact:
    return fact(number, kind=LABEL, name="", value=None, predicted=predicted, label=true, **{"stage": 3, **fields})


def test_a_label_of_a_shadow_pair_is_held_against_both_whichever_comes_first(store: Store, watched: Watched) -> None:
    ids = [fact(number).id for number in range(8)]
    link(store, "a", 100.0, {ids[0]: "1", ids[1]: "0", ids[2]: None, ids[3]: "1"})
    put(store, label(0, "1", "1"), label(1, "1", "1"), label(2, "1", "1"), label(4, "0", "1"))
    assert evidence(store, watched).pairs["right"] == (PairStage(0, 0, 0, 3, 2, 0),)  # a failed copy is not right
    link(store, "b", 101.0, {ids[4]: "1", ids[5]: "1", ids[6]: "1"})
    put(store, label(3, "0", "0"), label(5, "1", "1", arm="pinned"), label(6, "0", "0", row=1), label(7, "0", "0"))
    assert evidence(store, watched).pairs["right"] == (PairStage(0, 0, 0, 5, 3, 1),)
    link(store, "late", 60.0, {ids[7]: "0"})
    link(store, "other", 102.0, {ids[7]: "1"}, version="3")
    assert evidence(store, watched).pairs["right"] == (PairStage(0, 0, 0, 6, 3, 1),)
    assert evidence(store, watched).pairs["right"] == (PairStage(0, 0, 0, 6, 3, 1),)
