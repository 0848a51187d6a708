"""Who decides whether a window has drifted: the rules of other tools as their code has them, on the same bins."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import scipy.special as special
import scipy.stats as stats

from gateway.monitoring import distances

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Rule = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats], Bools]
"""Counts [column, cell] of the window and of the baseline, edges: which columns it calls drifted."""

REFERENCE_CHUNKS = 100


def _ks_p(now: npt.NDArray[np.int64], base: npt.NDArray[np.int64], edges: Floats) -> Bools:
    n, n0 = now.sum(-1), base.sum(-1)
    effective = np.sqrt(n * n0 / (n + n0))
    found: Bools = special.kolmogorov(effective * distances.ks(now, base)) < 0.05
    return found


def _chi_square(now: npt.NDArray[np.int64], base: npt.NDArray[np.int64], edges: Floats) -> Bools:
    coarse = [np.add.reduceat(side, _tens(base), axis=-1) for side in (now, base)]
    found: Bools = distances.chi_square_p(coarse[0], coarse[1]) < 0.001
    return found


def _psi(now: npt.NDArray[np.int64], base: npt.NDArray[np.int64], edges: Floats) -> Bools:
    coarse = [np.add.reduceat(side, _tens(base), axis=-1) for side in (now, base)]
    found: Bools = distances.psi(coarse[0], coarse[1]) >= 0.1
    return found


def _js(now: npt.NDArray[np.int64], base: npt.NDArray[np.int64], edges: Floats) -> Bools:
    found: Bools = distances.js_distance(now, base) >= 0.1
    return found


def _wasserstein(now: npt.NDArray[np.int64], base: npt.NDArray[np.int64], edges: Floats) -> Bools:
    found: Bools = distances.wasserstein(now, base, edges) >= 0.1  # the baseline's deviation is 1
    return found


def _tens(base: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    return np.array([0, *range(3, base.shape[-1] - 2, 2)], np.intp)


RULES: Mapping[str, tuple[str, Rule]] = {
    "ks": ("KS, p < 0.05 (whylogs; Evidently to 1,000 rows)", _ks_p),
    "chi2": ("chi-square, p < 0.001", _chi_square),
    "wasserstein": ("W1 / deviation > 0.1 (Evidently above 1,000 rows)", _wasserstein),
    "js": ("JS distance > 0.1 (Evidently, words)", _js),
    "psi": ("PSI > 0.1, 10 bins", _psi),
}


class MeanAndThreeDeviations:
    """NannyML: a distance above its mean and three deviations over chunks of the reference."""

    told = "JS above mean + 3 sd of 100 chunks (NannyML)"

    def __init__(self) -> None:
        self._seen: list[Floats] = []
        self._limit: Floats | None = None

    def look(self, now: npt.NDArray[np.int64], base: npt.NDArray[np.int64]) -> Bools | None:
        """None while the reference is being gathered."""
        found = distances.js_distance(now, base)
        if self._limit is None:
            self._seen.append(found)
            if len(self._seen) == REFERENCE_CHUNKS:
                chunks = np.array(self._seen)
                self._limit = chunks.mean(0) + 3 * chunks.std(0)
            return None
        drifted: Bools = found > self._limit
        return drifted


def bonferroni_ks(now: npt.NDArray[np.int64], base: npt.NDArray[np.int64], n_columns: int) -> Bools:
    """Alibi-Detect: KS with p < 0.05 shared over the columns."""
    n, n0 = now.sum(-1), base.sum(-1)
    found: Bools = stats.kstwobign.sf(np.sqrt(n * n0 / (n + n0)) * distances.ks(now, base)) < 0.05 / n_columns
    return found
