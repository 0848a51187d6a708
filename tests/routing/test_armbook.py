"""What outlives a table, and for how long."""

from __future__ import annotations

from gateway.native.arm import Arm
from gateway.routing.armbook import MAX_NAMES, OTHER, ArmBook


def test_the_same_arm_is_the_same_object() -> None:
    book = ArmBook()
    arm = book.arm("m", "1", "stable", 3, 10_000)
    assert book.arm("m", "1", "stable", 3, 10_000) is arm
    assert book.arm("m", "1", "stable", 4, 10_000) is not arm
    assert book.arm("m", "2", "stable", 3, 10_000) is not arm
    assert book.arm("other", "1", "stable", 3, 10_000) is not arm
    assert book.tally("m") is book.tally("m")
    assert book.load("m", "1") is book.load("m", "1")


def test_an_arm_with_another_weight_is_another_arm() -> None:
    book = ArmBook()
    before = book.arm("m", "1", "stable", 3, 10_000)
    after = book.arm("m", "1", "stable", 3, 5_000)
    assert after is not before
    del before
    book.retire()
    assert book.arms() == [after]


def test_arms_that_nobody_holds_are_let_go_of_and_their_counts_are_kept() -> None:
    book = ArmBook()
    held = book.arm("m", "1", "stable", 1)
    for stage in range(2, 1000):
        book.arm("m", "1", "stable", stage)
        book.retire()
    assert book.arms() == [held]
    assert [(arm.model, arm.version, arm.name) for arm in book.totals()] == [("m", "1", "stable")]
    del held
    book.retire()
    assert book.arms() == []


def test_sums_are_over_stages_and_add_up() -> None:
    book, other = ArmBook(), Arm("m", "1", "stable", 9)
    for stage in (1, 2):
        book.arm("m", "1", "stable", stage).absorb(other)
    (total,) = book.totals()
    assert total.statistics() == other.statistics()


def test_names_beyond_the_bound_share_one() -> None:
    book = ArmBook()
    for number in range(MAX_NAMES + 5):
        book.arm("m", "1", f"variant-{number}", 1)
    names = {arm.name for arm in book.totals()}
    assert OTHER in names
    assert len(names) == MAX_NAMES + 1
    book.arm("m", "1", "later", 1)
    assert {arm.name for arm in book.totals()} == names
