from collections.abc import Callable
from typing import Any, Literal, final

_State = Literal["closed", "open", "half_open"]

STATE_NAMES: tuple[_State, ...]
OUTCOMES: dict[str, int]

@final
class Circuit:
    def __init__(
        self,
        failures: int,
        open_for_us: int,
        probes: int = 1,
        changed: Callable[[_State, _State, int, int], object] | None = None,
    ) -> None: ...
    @property
    def failures(self) -> int: ...
    @property
    def probes(self) -> int: ...
    @property
    def open_for_us(self) -> int: ...
    @property
    def max_open_for_us(self) -> int: ...
    @property
    def state(self) -> _State: ...
    def statistics(self) -> dict[str, Any]: ...
    def try_admit(self, now_us: int) -> int: ...
    def tell(self, period: int, outcome: Literal["success", "failure", "neither"], now_us: int) -> None: ...
