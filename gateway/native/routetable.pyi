from collections.abc import Mapping
from typing import Self

from gateway.native.lane import Lane
from gateway.native.plan import Plan
from gateway.native.route import Target

class RouteTable:
    def __new__(cls, models: Mapping[str, Mapping[str, Lane | str | Target | Plan]]) -> Self: ...
    @property
    def wants_headers(self) -> bool: ...
    def target(
        self, model: str, version: str = "", headers: dict[bytes, bytes] = ..., body: bytes = b""
    ) -> Target: ...
    def lookup(self, model: str, version: str = "") -> Lane: ...
