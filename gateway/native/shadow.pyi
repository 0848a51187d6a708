from collections.abc import Callable
from typing import Any, Self, final

from gateway.native.arm import Arm
from gateway.native.body import Budget
from gateway.native.links import Links
from gateway.native.pairs import PairStats
from gateway.native.request import Caller, Watcher

DROP_REASONS: tuple[str, ...]

@final
class Receiver(Caller): ...

@final
class ShadowStats:
    def __init__(self, arm: Arm) -> None: ...
    @property
    def arm(self) -> Arm: ...
    @property
    def pairs(self) -> dict[Arm | None, PairStats]: ...
    @property
    def n_drawn(self) -> int: ...
    @property
    def n_admitted(self) -> int: ...
    @property
    def n_open(self) -> int: ...
    @property
    def used_us(self) -> int: ...
    @property
    def dropped(self) -> dict[str, int]: ...

@final
class Pair(Watcher): ...

@final
class Job:
    def __new__(cls, pair: Pair) -> Self: ...
    def run(self) -> None: ...
    def done(self) -> None: ...

@final
class Mirror:
    links: Links | None
    offload: Callable[[Job], Any] | None
    on_new: Callable[[], Any] | None
    least_time_us: int
    time_factor: float
    absolute: float
    relative: float

    def __new__(cls, budget: Budget, report: Callable[[BaseException], object]) -> Self: ...
    @property
    def stats(self) -> dict[Arm, ShadowStats]: ...
    @property
    def ended(self) -> list[Pair]: ...
    def forget(self, arm: Arm) -> None: ...
