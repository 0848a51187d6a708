from typing import final

from gateway.native.arm import Arm
from gateway.native.lane import Lane
from gateway.native.request import Rescue, Watcher

FROM_PARAMETER: str

@final
class RescueEnd(Watcher): ...

@final
class Fallback(Rescue):
    def __new__(cls, lane: Lane, causes: int, arm: Arm | None = None) -> Fallback: ...
    @property
    def lane(self) -> Lane: ...
    @property
    def arm(self) -> Arm | None: ...
    @property
    def n_open(self) -> int: ...
