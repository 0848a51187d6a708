from typing import Any, Self, final

import numpy as np

from gateway.native.arm import Arm
from gateway.native.signature import Signature
from gateway.native.tileplan import TilePlan

_Array = np.ndarray[Any, np.dtype[Any]]

@final
class Slot: ...

@final
class Monitor:
    def __new__(cls, plan: TilePlan, signature: Signature, window_s: int = 60) -> Self: ...
    @property
    def plan(self) -> TilePlan: ...
    @property
    def signature(self) -> Signature: ...
    @property
    def n_dropped(self) -> int: ...
    def cut(self, wall_s: float, now_us: int | None = None) -> list[tuple[str, int, int, bytes]]: ...
    def note_rows(
        self, inputs: list[_Array], outputs: list[_Array], arm: Arm | None = None, now_us: int | None = None
    ) -> None: ...
