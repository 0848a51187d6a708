"""What workers say of themselves and what they counted, and the lease that makes one control process the leader."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from gateway.store import Report, Store, WorkerRecord
from tests.store.conftest import Open

WORKER = WorkerRecord(
    incarnation="a1",
    index=0,
    host="here",
    pid=4711,
    started_at=1000.0,
    seen_at=2000.5,
    revision=17,
    generations={"fraud": 3},
    versions={"fraud": {"1": "READY", "2": "UNAVAILABLE"}},
    faults={"fraud": "version 2 is not ready"},
    is_ready=True,
)
TILE = Report("tile", "fraud", "1", "stable/3/60", b"\x00\xff{", 1000.0)


def test_what_a_worker_says_replaces_what_it_said_before(store: Store) -> None:
    store.report_worker(WORKER)
    later = replace(WORKER, seen_at=2001.0, revision=18, generations={"fraud": 4}, faults={}, is_ready=False)
    store.report_worker(later)
    assert store.workers() == [later]


def test_workers_are_sorted_by_host_and_index_and_a_restarted_one_comes_last(store: Store) -> None:
    for incarnation, host, index, started_at in [
        ("d", "b", 0, 1.0),
        ("c", "a", 1, 1.0),
        ("a", "a", 0, 5.0),
        ("b", "a", 0, 2.0),
    ]:
        store.report_worker(replace(WORKER, incarnation=incarnation, host=host, index=index, started_at=started_at))
    assert [worker.incarnation for worker in store.workers()] == ["b", "a", "c", "d"]


def test_who_was_not_seen_lately_is_left_out_when_asked(store: Store) -> None:
    now = time.time()
    store.report_worker(replace(WORKER, incarnation="dead", seen_at=now - 60))
    store.report_worker(replace(WORKER, incarnation="live", seen_at=now))
    assert [worker.incarnation for worker in store.workers(seen_within_s=30)] == ["live"]
    assert len(store.workers()) == 2


def test_workers_of_long_ago_are_forgotten(store: Store) -> None:
    store.report_worker(replace(WORKER, incarnation="old", seen_at=10.0))
    store.report_worker(replace(WORKER, incarnation="new", seen_at=20.0))
    assert store.forget_workers(before=20.0) == 1
    assert [worker.incarnation for worker in store.workers()] == ["new"]


def test_a_report_replaces_the_one_before_it_of_the_same_incarnation_and_key(store: Store) -> None:
    store.put_reports("a1", [TILE, replace(TILE, key="candidate/3/60")])
    store.put_reports("a1", [replace(TILE, body=b"more", at=1005.0)])
    store.put_reports("b2", [TILE])
    found = [(report.key, report.incarnation, report.body, report.at) for report in store.reports("tile")]
    assert found == [
        ("candidate/3/60", "a1", b"\x00\xff{", 1000.0),
        ("stable/3/60", "a1", b"more", 1005.0),
        ("stable/3/60", "b2", b"\x00\xff{", 1000.0),
    ]


def test_reports_are_found_by_kind_model_version_and_time(store: Store) -> None:
    store.put_reports("a1", [TILE, replace(TILE, version="2"), replace(TILE, model="iris"), replace(TILE, kind="pair")])
    store.put_reports("a1", [replace(TILE, key="later", at=2000.0)])
    assert len(store.reports("tile")) == 4
    assert len(store.reports("tile", model="fraud")) == 3
    assert [report.version for report in store.reports("tile", "fraud", "2")] == ["2"]
    assert [report.key for report in store.reports("tile", since=2000.0)] == ["later"]
    assert store.reports("none") == []


def test_old_reports_of_one_kind_are_pruned(store: Store) -> None:
    store.put_reports("a1", [TILE, replace(TILE, key="new", at=1001.0), replace(TILE, kind="pair")])
    assert store.prune_reports("tile", before=1001.0) == 1
    assert [report.key for report in store.reports("tile")] == ["new"]
    assert len(store.reports("pair")) == 1


def test_no_reports_are_no_transaction(store: Store) -> None:
    store.put_reports("a1", [])
    assert store.reports("tile") == []


def test_reports_of_many_rows_and_large_bodies_are_kept_whole(store: Store) -> None:
    many = [replace(TILE, key=str(number), body=bytes([number % 256]) * 20_000) for number in range(300)]
    store.put_reports("a1", many)
    assert {report.key: report.body for report in store.reports("tile")} == {r.key: r.body for r in many}


def test_what_workers_say_is_no_change_that_workers_must_see(store: Store) -> None:
    store.report_worker(WORKER)
    store.put_reports("a1", [TILE])
    store.lease("leader", "a", 10.0)
    assert store.revision() == 0
    assert store.audit_log() == []


def test_one_holds_the_lease_until_it_expires(store: Store) -> None:
    assert store.lease("leader", "a", 10.0, now=0.0) == 1
    assert store.lease("leader", "b", 10.0, now=9.9) is None
    assert store.lease("leader", "a", 10.0, now=9.9) == 1  # renewed until 19.9
    assert store.lease("leader", "b", 10.0, now=19.8) is None
    assert store.lease("leader", "b", 10.0, now=19.9) == 2
    assert store.lease("leader", "a", 10.0, now=20.0) is None


def test_who_renews_too_late_gets_a_new_term(store: Store) -> None:
    assert store.lease("leader", "a", 10.0, now=0.0) == 1
    assert store.lease("leader", "a", 10.0, now=10.0) == 2


def test_a_released_lease_is_free_at_once_and_its_term_never_comes_back(store: Store) -> None:
    assert store.lease("leader", "a", 10.0, now=0.0) == 1
    store.release("leader", "b")  # not b's to give
    assert store.lease("leader", "b", 10.0, now=1.0) is None
    store.release("leader", "a")
    assert store.lease("leader", "b", 10.0, now=1.0) == 2
    store.release("leader", "b")
    assert store.lease("leader", "a", 10.0, now=1.0) == 3


def test_leases_of_different_names_do_not_meet(store: Store) -> None:
    assert store.lease("leader", "a", 10.0) == 1
    assert store.lease("drift", "b", 10.0) == 1


def test_of_many_who_want_the_lease_at_once_one_gets_it(open_store: Open) -> None:
    stores = [open_store() for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        terms = list(pool.map(lambda n: stores[n % 4].lease("leader", f"holder {n}", 60.0), range(16)))
    assert [term for term in terms if term is not None] == [1]
