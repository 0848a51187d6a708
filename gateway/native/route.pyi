from typing import final

from gateway.native.arm import Arm
from gateway.native.lane import Lane
from gateway.native.rescue import Fallback

ON: dict[str, int]

@final
class Tally:
    def __init__(self, model: str) -> None: ...
    @property
    def model(self) -> str: ...
    @property
    def unkeyed(self) -> int: ...
    @property
    def forbidden(self) -> int: ...

@final
class ShadowLoad:
    rows: int
    nbytes: int
    requests: int

@final
class ShadowSpec:
    def __init__(
        self,
        version: str,
        serves: Lane | str,
        arm: Arm | None,
        share: int,
        salt: bytes,
        load: ShadowLoad,
        max_rows: int,
        max_bytes: int,
        max_concurrency: int,
    ) -> None: ...
    @property
    def version(self) -> str: ...
    @property
    def lane(self) -> Lane | None: ...
    @property
    def reason(self) -> str: ...
    @property
    def arm(self) -> Arm | None: ...
    @property
    def share(self) -> int: ...
    @property
    def max_rows(self) -> int: ...
    @property
    def max_bytes(self) -> int: ...
    @property
    def max_concurrency(self) -> int: ...
    @property
    def load(self) -> ShadowLoad: ...

@final
class Route:
    def __init__(
        self,
        model: str,
        generation: int = 0,
        *,
        shadows: list[ShadowSpec] | None = None,
        fallback: Target | None = None,
        fallback_on: int = 0,
        circuit_failures: int = 0,
        circuit_open_us: int = 0,
        circuit_probes: int = 1,
    ) -> None: ...
    @property
    def model(self) -> str: ...
    @property
    def generation(self) -> int: ...
    @property
    def shadows(self) -> list[ShadowSpec] | None: ...
    @property
    def fallback(self) -> Target | None: ...
    @property
    def fallback_on(self) -> int: ...
    @property
    def rescue(self) -> Fallback | None: ...
    @property
    def circuit_failures(self) -> int: ...
    @property
    def circuit_open_us(self) -> int: ...
    @property
    def circuit_probes(self) -> int: ...

@final
class Target:
    def __init__(
        self, version: str, serves: Lane | str, arm: Arm | None = None, route: Route | None = None
    ) -> None: ...
    @property
    def version(self) -> str: ...
    @property
    def lane(self) -> Lane | None: ...
    @property
    def reason(self) -> str: ...
    @property
    def arm(self) -> Arm | None: ...
    @property
    def route(self) -> Route | None: ...
