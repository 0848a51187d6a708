from typing import Any, final

@final
class Arm:
    model: str
    version: str
    name: str
    stage: int
    weight: int

    def __init__(self, model: str, version: str, name: str, stage: int = 0, weight: int = 0) -> None: ...
    def absorb(self, other: Arm) -> None: ...
    def statistics(self) -> dict[str, Any]: ...
