"""Distances against SciPy and Evidently on the same bins, and on what breaks formulas: nothing, one category, NaN."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats as stats
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from gateway.monitoring import distances

CELLS = st.integers(2, 12).flatmap(
    lambda n: st.tuples(*(st.lists(st.integers(0, 5000), min_size=n, max_size=n) for _ in range(2)))
)

EVIDENTLY = (
    ([820, 82], [3585, 417], 0.002008704139500452, 0.01584020815662455),
    ([353, 549], [2240, 1762], 0.11476889967476583, 0.11948459061269893),
    ([382, 188, 94, 185, 56], [1504, 845, 480, 860, 316], 0.012426507757531562, 0.03938790558690196),
    ([109, 159, 162, 183, 292], [597, 894, 671, 770, 1073], 0.028919611966033675, 0.06006886957169036),
    ([68, 53, 74, 54, 159, 57, 92, 54, 129, 49, 59, 64], [262, 225, 346, 194, 764, 195, 367, 245, 630, 227, 294, 263],
     0.012861254758722676, 0.040070310854269875),
    ([31, 34, 36, 179, 110, 55, 31, 90, 84, 120, 52, 90], [298, 176, 162, 879, 435, 266, 111, 398, 333, 452, 203, 299],
     0.0496987482344695, 0.0781737559168394),
)  # fmt: skip
"""now, base, psi_stat_test, jensenshannon_stat_test of Evidently 0.7.23, given words with these counts. Recorded: it
does not import beside pandas 3.
"""


@pytest.mark.parametrize(("now", "base", "psi", "js"), EVIDENTLY)
def test_psi_and_js_are_evidentlys(now: list[int], base: list[int], psi: float, js: float) -> None:
    assert distances.psi(now, base, added=0.0) == pytest.approx(psi, rel=1e-12)
    assert distances.js_distance(now, base) == pytest.approx(js, rel=1e-12)


@given(CELLS)
def test_they_are_what_scipy_says(sides: tuple[list[int], list[int]]) -> None:
    now, base = (np.array(side) + (sum(side) == 0) for side in sides)
    n, n0 = now.sum(), base.sum()
    q, p = now / n, base / n0
    half = 0.5 * ((now > 0) | (base > 0))
    a, b = (now + half) / (now + half).sum(), (base + half) / (base + half).sum()
    seen = half > 0
    expected = stats.entropy(a[seen], b[seen]) + stats.entropy(b[seen], a[seen])
    assert distances.psi(now, base) == pytest.approx(expected, abs=1e-12)
    assert distances.js_distance(now, base) == pytest.approx(jensenshannon(q, p), abs=1e-7)
    middles = np.arange(now.size)
    spread = [np.repeat(middles, side) for side in (now, base)]
    assert distances.ks(now, base) == pytest.approx(stats.ks_2samp(*spread, method="asymp").statistic, abs=1e-12)
    if seen.sum() > 1:
        table = stats.chi2_contingency(np.stack([now, base])[:, seen], correction=False)
        assert distances.chi_square(now, base) == pytest.approx(table.statistic, rel=1e-9, abs=1e-9)
        assert distances.chi_square_p(now, base) == pytest.approx(table.pvalue, rel=1e-6, abs=1e-12)
        shift = 0.04 / distances.noise(n, n0)
        tail = stats.ncx2.sf(table.statistic, seen.sum() - 1, shift)
        assert distances.chi_square_p(now, base, 0.04) == pytest.approx(tail, rel=1e-5, abs=1e-9)


@given(CELLS)
def test_wasserstein_is_scipys_with_the_mass_in_the_middle_of_bins(sides: tuple[list[int], list[int]]) -> None:
    now, base = (np.array([1, *side, 0]) for side in sides)
    edges = np.cumsum(np.linspace(0.3, 2.0, now.size - 1)) - 4.0
    places = np.concatenate([edges[:1], (edges[1:] + edges[:-1]) / 2, edges[-1:]])
    expected = stats.wasserstein_distance(places, places, now, base)
    assert distances.wasserstein(now, base, edges) == pytest.approx(expected, abs=1e-9)


@given(CELLS)
def test_psi_and_js_do_not_mind_which_side_is_which(sides: tuple[list[int], list[int]]) -> None:
    now, base = sides
    assert distances.psi(now, base) == pytest.approx(float(distances.psi(base, now)), abs=1e-12)
    assert distances.js_distance(now, base) == pytest.approx(float(distances.js_distance(base, now)), abs=1e-12)


@pytest.mark.parametrize("n", [100, 1000])
def test_corrected_psi_is_free_of_what_chance_gives(n: int) -> None:
    rng = np.random.default_rng(1)
    now = rng.multinomial(n, np.full(10, 0.1), size=4000)
    base = rng.multinomial(50_000, np.full(10, 0.1), size=4000)
    raw, chance = distances.psi(now, base).mean(), distances.chance(now, base).mean()
    assert raw == pytest.approx(chance, rel=0.06)
    over = (distances.corrected_psi(now, base) > 0.1).mean()
    assert over <= {100: 0.03, 1000: 0.0}[n]


@pytest.mark.parametrize(("n_cells", "least"), [(5, 185), (10, 279), (20, 439), (30, 584)])
def test_from_the_least_n_on_chance_hardly_lifts_psi_above_a_tenth(n_cells: int, least: int) -> None:
    assert distances.least_n(n_cells) == least
    rng = np.random.default_rng(2)
    share = np.full(n_cells, 1 / n_cells)
    psi = distances.psi(rng.multinomial(least, share, size=20_000), (1e9 * share).astype(int))
    assert (psi > 0.1).mean() <= 0.002


@pytest.mark.parametrize("now", [[0, 0, 0], [8, 0, 0], [3, 3, 2], [10**7, 2 * 10**7, 3]])
def test_nothing_at_all_a_single_category_eight_rows_and_ten_million_have_finite_distances(now: list[int]) -> None:
    for base in ([0, 0, 0], [100, 0, 0], [10**7, 10**7, 1]):
        found = [distances.psi(now, base), distances.js_distance(now, base), distances.ks(now, base)]
        found += [distances.wasserstein(now, base, [0.0, 1.0]), distances.chi_square(now, base)]
        assert np.isfinite(found).all()
        assert (np.array(found) >= 0.0).all()


def test_equal_shares_are_at_distance_nought() -> None:
    now, base = [10, 20, 30, 40], [100, 200, 300, 400]
    assert distances.js_distance(now, base) == 0.0
    assert distances.ks(now, base) == 0.0
    assert distances.wasserstein(now, base, [0.0, 1.0, 5.0]) == 0.0
    assert distances.psi(now, base, added=0.0) == 0.0


def test_a_unit_shift_moves_mass_by_a_unit() -> None:
    edges = np.arange(11.0)
    base = [0, 0, 100, 100, 100, 0, 0, 0, 0, 0, 0, 0]
    assert distances.wasserstein(np.roll(base, 1), base, edges) == pytest.approx(1.0)


def test_cells_are_put_together_until_each_has_enough() -> None:
    assert distances.coarsen([1, 2, 3, 10, 1, 1], 5.0).tolist() == [0, 3]
    assert distances.coarsen([100, 100], 1.0).tolist() == [0, 1]
    assert distances.coarsen([1, 1], 100.0).tolist() == [0]


@pytest.mark.parametrize(("hits", "n"), [(0, 0), (0, 50), (3, 50), (50, 50)])
def test_bounds_of_a_share_are_clopper_and_pearsons(hits: int, n: int) -> None:
    low, high = distances.share_bounds(hits, n, risk=0.01)
    if n == 0:
        assert (low, high) == (0.0, 1.0)
    else:
        expected = stats.binomtest(hits, n).proportion_ci(0.98, "exact")
        assert (low, high) == pytest.approx((expected.low, expected.high))


def test_no_cells_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one count for each of one or more cells"):
        distances.psi([], [])
