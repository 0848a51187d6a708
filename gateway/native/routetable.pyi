from typing import Self

from gateway.native.lane import Lane

class RouteTable:
    def __new__(cls, models: dict[str, dict[str, Lane | str]]) -> Self: ...
    def lookup(self, model: str, version: str = "") -> Lane: ...
