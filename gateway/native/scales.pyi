from typing import Any, Self, final

import numpy as np

STABLE: int
CANDIDATE: int
SIDES: tuple[str, str]
DRAWN: int
JUDGED: int
FAILED: int
BROKEN: int
GIVEN_UP: int
LATENCY: slice
COST: slice
COST_UNIT_NS: int
VALUE_CELLS: int

def values(column: int) -> slice: ...

@final
class Scales:
    def __new__(
        cls,
        model: str,
        generation: int,
        versions: tuple[str, str],
        shares: tuple[int, int],
        is_sticky: bool = False,
    ) -> Self: ...
    @property
    def model(self) -> str: ...
    @property
    def generation(self) -> int: ...
    @property
    def versions(self) -> tuple[str, str]: ...
    @property
    def shares(self) -> tuple[int, int]: ...
    @property
    def is_sticky(self) -> bool: ...
    @property
    def n_sealed(self) -> int: ...
    @property
    def open(self) -> tuple[int, int]: ...
    def facts(self, now_us: int) -> dict[str, dict[str, int]]: ...
    @property
    def n_unsealed(self) -> int: ...
    @property
    def names(self) -> tuple[list[str] | None, list[str] | None]: ...
    def to_bytes(self, now_us: int) -> bytes: ...

def read_counts(told: bytes) -> np.ndarray[Any, np.dtype[np.int64]]: ...
def value_cell_of(value: float) -> int: ...
