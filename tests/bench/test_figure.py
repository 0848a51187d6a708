"""Shares, targets and the comparison with the last kept result."""

import pytest

from bench import results
from bench.figure import Figure, change

STAMP = {
    "date": "2026-01-02T03:04:05Z",
    "commit": "abc1234",
    "mode": "full",
    "subject": "gateway",
    "cpu": "x",
    "cores": 2,
}


def share_figure(rounds, limits, target=0.5):
    return Figure("load", "8x16", "/s", rounds, limit_rounds=limits, has_share=True, target=target)


def test_a_share_is_the_median_of_the_pairs_and_not_the_ratio_of_the_medians():
    figure = share_figure([50.0, 10.0, 80.0], [100.0, 20.0, 100.0])
    assert figure.shares == [0.5, 0.5, 0.8]
    assert figure.share == 0.5
    assert (figure.value, figure.limit) == (50.0, 100.0)


def test_a_target_is_met_or_missed_in_the_direction_that_is_better():
    assert share_figure([50.0], [100.0]).is_met is True
    assert share_figure([49.0], [100.0]).is_met is False
    assert Figure("b", "memory", "kB", [33.0], "lower", target=32.0).is_met is False
    assert Figure("b", "memory", "kB", [33.0], "lower").is_met is None


def test_a_change_is_of_the_share_where_there_is_one():
    before = share_figure([40.0], [100.0]).as_dict()
    assert change(share_figure([90.0], [180.0]), before) == pytest.approx(0.25)
    assert change(Figure("load", "8x16", "/s", [90.0]), before) is None
    assert change(share_figure([90.0], [180.0]), None) is None


def test_a_kept_result_is_found_again_by_the_same_machine_mode_and_subject_only(tmp_path):
    path = results.save(STAMP, [share_figure([40.0], [100.0])], {}, tmp_path)
    assert path.name == "20260102T030405Z-abc1234.json"
    later = STAMP | {"date": "2026-01-03T00:00:00Z"}
    results.save(later, [share_figure([60.0], [100.0])], {}, tmp_path)
    assert results.last_records(STAMP, tmp_path)["load", "8x16"]["share"] == 0.6
    for other in ({"cores": 4}, {"mode": "quick"}, {"subject": "target"}):
        assert results.last_records(STAMP | other, tmp_path) == {}
