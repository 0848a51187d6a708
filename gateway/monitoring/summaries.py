"""Statistics of a whole tensor, row by row, for tensors of too many values to watch each one.

Computed in doubles and rounded to FP32: serving may add up in another order, and a constant picture must not fall now
into one bin and now into the next. This is the definition; serving's native code is held against it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

STATISTICS = ("mean", "std", "min", "max", "norm", "length")

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = 2**64 - 1


def splitmix64(seed: int, n: int) -> Array:
    """The first `n` numbers of Steele, Lea and Flood's generator: uint64[n]."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed & _MASK) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def signs(seed: int, n: int) -> Array:
    """+-1 for each of `n` values, float64: -1 where bit i % 64 of number i // 64 is set."""
    words = splitmix64(seed, -(-n // 64)).astype("<u8")
    bits = np.unpackbits(words.view(np.uint8), count=n, bitorder="little")
    return 1.0 - 2.0 * bits


def summarise(rows: Array, statistic: str, seed: int = 0) -> Array:
    """float64[n_rows] of `rows` [n_rows, n_values], each an FP32 number."""
    n_rows, n_values = rows.shape
    if statistic == "length":
        return np.full(n_rows, np.float64(np.float32(n_values)))
    if n_values == 0:
        return np.full(n_rows, np.nan)
    values = rows.astype(np.float64, copy=False)
    with np.errstate(all="ignore"):  # NaN and infinity in a tensor are what is looked for
        match statistic:
            case "mean":
                result = values.mean(axis=1)
            case "std":
                result = values.std(axis=1)
            case "min":
                result = values.min(axis=1)
            case "max":
                result = values.max(axis=1)
            case "norm":
                result = np.sqrt(np.einsum("ij,ij->i", values, values))
            case "projection":
                result = np.einsum("ij,j->i", values, signs(seed, n_values)) / np.sqrt(n_values)
            case _:
                raise ValueError(f"no statistic {statistic!r}")
        return np.asarray(result, np.float32).astype(np.float64)
