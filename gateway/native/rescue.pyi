from collections.abc import Iterable
from typing import Literal, final

from gateway.native.arm import Arm
from gateway.native.lane import Lane
from gateway.native.request import Rescue, Watcher

CAUSES: dict[str, int]
FROM_PARAMETER: str

@final
class RescueEnd(Watcher): ...

@final
class Fallback(Rescue):
    def __new__(
        cls, lane: Lane, on: Iterable[Literal["error", "circuit_open", "timeout"]], arm: Arm | None = None
    ) -> Fallback: ...
    @property
    def lane(self) -> Lane: ...
    @property
    def arm(self) -> Arm | None: ...
    @property
    def n_open(self) -> int: ...
