from collections.abc import Callable, Mapping
from typing import Any, Self

from gateway.native.batch import Batch
from gateway.native.body import Body, Budget
from gateway.native.call import Call
from gateway.native.door import Door
from gateway.native.exchange import Exchange
from gateway.native.http2 import Session, SessionLimits
from gateway.native.lane import Lane, Occupancy
from gateway.native.routetable import RouteTable
from gateway.native.sampler import Sampler
from gateway.native.shadow import Mirror
from gateway.native.timers import Timers

class DataPlane:
    routes: RouteTable
    relays: Callable[[Call], Any] | None

    def __new__(
        cls,
        limits: SessionLimits,
        max_in_flight_bytes: int,
        unary: Mapping[str, Callable[[bytes], bytes]],
        streaming: Mapping[str, Callable[[Call], Any]],
        report: Callable[[BaseException], object],
        *args: Any,
        **kwargs: Any,
    ) -> Self: ...
    @property
    def limits(self) -> SessionLimits: ...
    @property
    def budget(self) -> Budget: ...
    @property
    def timers(self) -> Timers: ...
    @property
    def inbox(self) -> list[Call]: ...
    @property
    def dirty(self) -> list[Session]: ...
    @property
    def pending(self) -> list[Lane]: ...
    @property
    def background(self) -> list[Lane]: ...
    @property
    def occupancy(self) -> Occupancy: ...
    @property
    def mirror(self) -> Mirror: ...
    @property
    def is_draining(self) -> bool: ...
    @property
    def door(self) -> Door: ...
    @property
    def sampler(self) -> Sampler: ...
    @property
    def n_requests(self) -> int: ...
    @property
    def n_refused(self) -> int: ...
    @property
    def refused(self) -> dict[int, int]: ...
    def infer(
        self,
        body: Body,
        done: Callable[[Body | None, int, str], object],
        deadline_us: int = 0,
        now_us: int = 0,
        trace: bytes | None = None,
        parameters: list[tuple[str, str]] | None = None,
        headers: dict[bytes, bytes] | None = None,
    ) -> Exchange: ...
    def turn_away(self, reason: str, code: int, model: str, version: str, id: str, now_us: int) -> None: ...
    def turn(self, now_us: int) -> None: ...
    def settle(self, batch: Batch, now_us: int) -> None: ...
