"""Reports of many are written together, each is answered for itself, and nothing is counted twice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import GatewayError, InvalidArgument, Unavailable
from gateway.feedback import desk as module
from gateway.feedback.desk import Desk
from gateway.feedback.report import MAX_REPORTS, Report, Result, Status
from gateway.feedback.scores import scores
from gateway.store import Store, StoreUnavailable
from tests.support.receipttwin import token

ACCEPTED, DUPLICATE = Status.ACCEPTED, Status.DUPLICATE


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path}/gateway.db") as store:
        yield store


@pytest.fixture
def desk(store: Store) -> Iterator[Desk]:
    desk = Desk(lambda: store)
    yield desk
    desk.close()


def of(store: Store, number: int, **fields: Any) -> str:
    return token(number, store.feedback_key(), **fields)


def statuses(results: Sequence[Result]) -> list[Status]:
    return [result.status for result in results]


def test_each_report_has_its_own_result_and_its_own_count(store: Store, desk: Desk) -> None:
    one = of(store, 1, predictions=[(1, 0.9)])
    given = [
        Report(one, label=1),
        Report(one, label=0),
        Report(one, values={"sold": 1.0}),
        Report(one, label=1, values={"sold": 0.0, "rating": 4.0}),
        Report("nonsense", label=1),
        Report(of(store, 2), row=7, label=1),
    ]
    assert statuses(desk.ask(given)) == [ACCEPTED, DUPLICATE, ACCEPTED, ACCEPTED, Status.MALFORMED, Status.INVALID]
    assert statuses(desk.ask(given[:4])) == [DUPLICATE] * 4
    found = scores("m", store.feedback_sums("m"))
    (version,) = found.versions
    assert (version.accepted, version.duplicate) == (3, 5)
    assert version.accuracy is not None
    assert (version.accuracy.k, version.accuracy.n) == (1, 1)
    assert {name: mean.total for name, mean in version.values.items()} == {"rating": 4.0, "sold": 1.0}
    assert found.refused == {"invalid": 1, "malformed": 1}


class Held:
    """A store whose first write waits until it is let go; what it is asked to write is noted."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.may_write, self.is_writing = threading.Event(), threading.Event()
        self.sizes: list[int] = []

    def feedback_key(self) -> bytes:
        return self._store.feedback_key()

    def put_feedback(self, facts: Sequence[Any], count: Callable[[Collection[Any]], Any]) -> Any:
        self.sizes.append(len(facts))
        self.is_writing.set()
        assert self.may_write.wait(20)
        return self._store.put_feedback(facts, count)


def test_what_comes_while_the_store_writes_is_written_together(store: Store) -> None:
    held = Held(store)
    desk = Desk(lambda: held)  # type: ignore[arg-type,return-value]
    answers: list[list[Result] | GatewayError] = []
    done = threading.Event()

    def told(answer: list[Result] | GatewayError) -> None:
        answers.append(answer)
        if len(answers) == 101:
            done.set()

    desk.take([Report(of(store, 0), label=1)], told)
    assert held.is_writing.wait(20)
    for number in range(1, 101):
        desk.take([Report(of(store, number), label=1)], told)
    held.may_write.set()
    assert done.wait(20)
    assert held.sizes == [1, 100]
    assert all(isinstance(answer, list) and statuses(answer) == [ACCEPTED] for answer in answers)
    desk.close()


def test_when_the_store_fails_all_are_told_and_may_send_again(store: Store) -> None:
    faults = [StoreUnavailable("store: locked")]

    def opened() -> Store:
        if faults:
            raise faults.pop()
        return store

    desk = Desk(opened)
    reports = [Report(of(store, 1), label=1)]
    with pytest.raises(StoreUnavailable, match="locked"):
        desk.ask(reports)
    assert statuses(desk.ask(reports)) == [ACCEPTED]
    desk.close()
    with pytest.raises(Unavailable, match="shutting down"):
        desk.ask(reports)


def test_too_many_are_refused_before_they_take_memory(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(store)
    desk = Desk(lambda: held)  # type: ignore[arg-type,return-value]
    one = Report(of(store, 1), label=1)
    with pytest.raises(InvalidArgument, match=r"got 10001, expected 10000 at most"):
        desk.ask([one] * (MAX_REPORTS + 1))
    monkeypatch.setattr(module, "MAX_WAITING", 5)
    desk.take([one], lambda _: None)
    assert held.is_writing.wait(20)
    desk.take([one] * 5, lambda _: None)
    with pytest.raises(Unavailable, match="5 wait for the store already"):
        desk.take([one], lambda _: None)
    held.may_write.set()
    desk.close()


def test_what_waits_at_the_end_is_still_written(store: Store) -> None:
    held = Held(store)
    desk = Desk(lambda: held)  # type: ignore[arg-type,return-value]
    desk.take([Report(of(store, 1), label=1)], lambda _: None)
    assert held.is_writing.wait(20)
    desk.take([Report(of(store, 2), label=1)], lambda _: None)
    held.may_write.set()
    desk.close()
    assert store.last_feedback() == 2


def test_a_caller_who_cannot_be_told_does_not_stop_the_rest(store: Store, desk: Desk) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("nobody there")

    reports = [Report(of(store, 1), label=1)]
    desk.take(reports, broken)
    assert statuses(desk.ask(reports)) == [DUPLICATE]
