from typing import Any, final

from gateway.native.scales import Scales

@final
class Arm:
    model: str
    version: str
    name: str
    stage: int
    weight: int
    scales: Scales | None
    side: int

    def __init__(self, model: str, version: str, name: str, stage: int = 0, weight: int = 0) -> None: ...
    def absorb(self, other: Arm) -> None: ...
    def statistics(self) -> dict[str, Any]: ...
