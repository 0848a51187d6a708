"""One watched column on its way into a profile: which counters it needs in either pass, and what it turns out to be."""

from __future__ import annotations

from typing import Any

import numpy as np

from gateway.config.monitoring import Monitoring
from gateway.monitoring.choice import Watch
from gateway.monitoring.numbers import Numbers, count_in
from gateway.monitoring.profile import Calibration, Categorical, Column, Numeric, Summary
from gateway.monitoring.summaries import summarise
from gateway.monitoring.values import Values
from gateway.monitoring.words import Words

Array = np.ndarray[Any, np.dtype[Any]]

FREE_TEXT_SHARE = 0.5
"""Text of which the vocabulary covers less than this is prose or an identifier: its length is watched instead."""


class Track:
    """`see` all frames, `freeze`, `count` them again, then `column`."""

    def __init__(self, watch: Watch, monitoring: Monitoring) -> None:
        self._watch, self._monitoring = watch, monitoring
        self._is_text = watch.datatype == "BYTES"
        self._numbers: Numbers | None = None
        self._words: Words | None = None
        self._cells: Array | None = None
        self._n_rows = 0
        self._is_probability = True
        match watch.kind:
            case "calibration":
                self._cells = np.zeros(len(Calibration.EDGES) + 1, np.int64)
            case "summary":
                self._numbers = Numbers("FP32")
            case "numeric":
                self._numbers = Numbers(watch.datatype)
            case "categorical":
                self._words = Words()
            case _ if watch.datatype == "BOOL":
                self._words = Words()
            case _:
                self._words = Words()
                if not self._is_text:
                    self._numbers = Numbers(watch.datatype)
                elif watch.index is None:
                    self._numbers = Numbers("FP32")  # of its length

    def see(self, values: Values) -> None:
        """First pass."""
        watch = self._watch
        if self._cells is not None:
            if self._is_probability:
                column = values.column(watch.offset)
                self._is_probability = bool(((column >= 0) & (column <= 1)).all())
            return
        if self._words is not None:
            self._words.see(values.column(watch.offset))
            is_guess = watch.kind == "auto" and not self._is_text and watch.datatype != "BOOL"
            if is_guess and self._words.distinct > self._monitoring.vocabulary:
                self._words = None  # too many different whole numbers for categories
        if self._numbers is not None:
            for numbers in self._as_numbers(values):
                self._numbers.see(numbers)

    def freeze(self) -> bool:
        """Settle what it is; False when it is not worth a column after all."""
        watch = self._watch
        if self._cells is not None:
            return self._is_probability or not watch.is_guess
        if self._words is not None and self._numbers is not None:
            if self._is_text and self._is_free():
                self._words = None
            else:
                self._numbers = None
        if self._words is not None:
            self._words.freeze(self._monitoring.vocabulary, (0, 1) if watch.datatype == "BOOL" else None)
        if self._numbers is not None:
            self._numbers.freeze(self._monitoring.bins)
        return True

    def count(self, values: Values) -> None:
        """Second pass."""
        self._n_rows += values.n_rows
        if self._cells is not None:
            column = np.asarray(values.column(self._watch.offset), np.float64)
            self._cells += count_in(np.array(Calibration.EDGES), column)
        elif self._words is not None:
            self._words.count(values.column(self._watch.offset))
        elif self._numbers is not None:
            for numbers in self._as_numbers(values):
                self._numbers.count(numbers)

    def column(self) -> Column:
        watch = self._watch
        place: dict[str, Any] = {"name": watch.name, "tensor": watch.tensor, "index": watch.index}
        if self._cells is not None:
            inside = tuple(self._cells[1:-1].tolist())
            return Calibration(**place, counts=inside, outside=self._n_rows - sum(inside))
        if self._words is not None:
            return Categorical(**place, **self._words.fields())
        assert self._numbers is not None
        if watch.kind == "summary" or self._is_text:
            statistic = watch.statistic or "length"
            return Summary(**place, statistic=statistic, projection_seed=watch.seed, **self._numbers.fields())
        return Numeric(**place, **self._numbers.fields())

    def _as_numbers(self, values: Values) -> list[Array]:
        """float64 arrays: the value, or the statistic of each row."""
        watch = self._watch
        if watch.kind != "summary" and not self._is_text:
            return [np.ascontiguousarray(values.column(watch.offset), np.float64)]
        if watch.statistic in (None, "length"):
            return [values.lengths().astype(np.float32).astype(np.float64)]
        return [summarise(rows, watch.statistic, watch.seed or 0) for _, rows in values.by_length()]

    def _is_free(self) -> bool:
        assert self._words is not None
        top = self._words.top(self._monitoring.vocabulary)
        return sum(n for _, n in top) < FREE_TEXT_SHARE * self._words.n
