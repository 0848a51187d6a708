"""Facts are kept once, whoever writes them, with their sums, in an order that a reader can go on from."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.feedback import tally
from gateway.feedback.report import VALUE, Fact
from gateway.store import Store

Open = Callable[[], Store]


def fact(number: int, **fields: object) -> Fact:
    plain = Fact(
        id=number.to_bytes(14, "big"),
        row=0,
        kind=VALUE,
        name="sold",
        model="m",
        version="1",
        answered="1",
        arm="stable",
        stage=1,
        weight=9500,
        unit=None,
        arrived_at=3600.0,
        at=3700.0,
        predicted=None,
        score=None,
        label=None,
        value=1.0,
        groups="",
    )
    return replace(plain, **fields)  # type: ignore[arg-type]


def put(store: Store, *facts: Fact) -> int:
    """How many were new."""
    by_key = {one.key: one for one in facts}
    return len(store.put_feedback(facts, lambda new: tally.of_facts(by_key[key] for key in new)))


def total(store: Store) -> tuple[int, float]:
    found = store.feedback_sums("m")[("m", "1", VALUE, "sold")]
    return found.n, found.total


def test_a_fact_is_kept_and_summed_once_whoever_writes_it(open_store: Open) -> None:
    one, two = open_store(), open_store()
    assert put(one, fact(1), fact(2, value=2.0)) == 2
    assert put(two, fact(2, value=99.0), fact(3, value=3.0)) == 1
    assert put(one) == 0
    assert total(two) == (3, 6.0)
    assert [seen.value for _, seen in one.feedback("m", [1])] == [1.0, 2.0, 3.0]


def test_another_row_name_or_kind_is_another_fact(store: Store) -> None:
    others = [fact(1), fact(1, row=1), fact(1, name="rating"), fact(1, kind="label", label="1", value=None)]
    assert put(store, *others) == 4
    assert put(store, *others) == 0


def test_many_writers_at_once_lose_nothing_and_count_nothing_twice(open_store: Open) -> None:
    failures: list[BaseException] = []

    def write(store: Store, first: int) -> None:
        try:
            for at in range(0, 300, 50):
                put(store, *(fact(first + at + i) for i in range(50)))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(open_store(), first)) for first in (0, 150, 300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures
    store = open_store()
    assert total(store) == (600, 600.0)
    assert len(store.feedback("m", [1])) == 600


def test_a_reader_goes_on_from_where_it_was(store: Store) -> None:
    assert store.last_feedback() == 0
    put(store, *(fact(i) for i in range(10)), fact(10, stage=2), fact(11, model="other"), fact(12, row=3))
    page = store.feedback("m", [1], limit=4)
    rest = store.feedback("m", [1], after=page[-1][0])
    assert [seen.id for _, seen in page + rest] == [fact(i).id for i in range(10)]
    assert [seen.stage for _, seen in store.feedback("m", [2])] == [2]
    last = store.last_feedback()
    assert store.feedback("m", [1, 2], after=last) == []


def test_a_seq_never_comes_twice_also_when_all_is_forgotten(store: Store) -> None:
    put(store, fact(1))
    (seq, _), *_ = store.feedback("m", [1])
    assert store.prune_feedback(4000.0, 0) == 1
    assert total(store) == (1, 1.0)
    put(store, fact(2))
    assert store.feedback("m", [1])[0][0] > seq
    store.prune_feedback(0.0, 2)
    assert store.feedback_sums("m") == {}


def test_sums_are_of_a_model_and_from_an_hour_on(store: Store) -> None:
    put(store, fact(1), fact(2, arrived_at=7300.0, value=5.0), fact(3, model="other"))
    assert total(store) == (2, 6.0)
    assert store.feedback_sums("m", 2)[("m", "1", VALUE, "sold")].total == 5.0
    assert {model for model, *_ in store.feedback_sums()} == {"m", "other"}


def test_all_have_one_key_and_it_stays(open_store: Open) -> None:
    keys: list[bytes] = []
    stores = [open_store() for _ in range(4)]
    threads = [threading.Thread(target=lambda store=store: keys.append(store.feedback_key())) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(keys) == 4
    assert len(set(keys)) == 1
    assert len(keys[0]) == 16
    assert open_store().feedback_key() == keys[0]


def test_the_file_of_the_key_is_its_owners_alone_and_one_that_is_none_is_refused(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/gateway.db") as store:
        store.feedback_key()
        file = tmp_path / "feedback.key"
        assert file.stat().st_mode & 0o777 == 0o600
        assert [each.name for each in tmp_path.glob("feedback.key*")] == ["feedback.key"]
        file.write_text("cafe\n")
        with pytest.raises(ConfigError, match="got 4 characters, expected 32 hexadecimal digits"):
            store.feedback_key()
