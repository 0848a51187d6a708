from collections.abc import Callable
from typing import Any, Literal, final

import numpy as np

from gateway.native.arm import Arm
from gateway.native.batch import Batch
from gateway.native.circuit import Circuit
from gateway.native.monitor import Monitor
from gateway.native.request import Holder
from gateway.native.sampler import Sampler
from gateway.native.signature import Signature
from gateway.native.timers import Timed, Timers

_Array = np.ndarray[Any, np.dtype[Any]]
_Run = Callable[[list[_Array]], list[_Array]]

RELEASE_NAMES: tuple[str, ...]
RESCUE_NAMES: tuple[str, ...]

def decide_release(
    now_us: int,
    oldest_us: int,
    rows: int,
    max_rows: int,
    max_delay_us: int,
    deadline_us: int,
    predicted_us: float,
) -> tuple[Literal["wait", "full", "idle", "delay", "deadline"], int | None]: ...

@final
class Occupancy:
    n_cores: int

    def __init__(self, n_cores: int = 1) -> None: ...
    @property
    def n_batches(self) -> int: ...

@final
class LaneAlarm(Timed): ...

@final
class Lane(Holder):
    circuit: Circuit | None
    monitor: Monitor | None
    relay: Any
    on_left: Callable[[], object] | None

    def __init__(
        self,
        signature: Signature,
        run: _Run | None,
        submit: Callable[[Batch], object] | None,
        report: Callable[[BaseException], object] | None,
        timers: Timers,
        pending: list[Lane],
        *,
        max_batch_size: int,
        max_batch_bytes: int = ...,
        max_delay_us: int = 0,
        instances: int = 1,
        max_queue_rows: int = 65536,
        max_queue_bytes: int = ...,
        default_timeout_us: int = 0,
        max_timeout_us: int = 0,
        priority_levels: int = 1,
        default_priority: int = 1,
        inline_below_us: int = 100,
        counts_cpu: bool = False,
        sampler: Sampler | None = None,
        occupancy: Occupancy | None = None,
        twin: Lane | None = None,
        is_background: bool = False,
        buffers: dict[int, list[_Array]] | None = None,
        lingers: bool = True,
        alone_bytes: int = 0,
    ) -> None: ...
    @property
    def signature(self) -> Signature: ...
    @property
    def is_closed(self) -> bool: ...
    @property
    def max_batch_size(self) -> int: ...
    @property
    def max_batch_bytes(self) -> int: ...
    @property
    def alone_bytes(self) -> int: ...
    @property
    def max_delay_us(self) -> int: ...
    @property
    def instances(self) -> int: ...
    @property
    def max_queue_rows(self) -> int: ...
    @property
    def max_queue_bytes(self) -> int: ...
    @property
    def default_timeout_us(self) -> int: ...
    @property
    def max_timeout_us(self) -> int: ...
    @property
    def n_priorities(self) -> int: ...
    @property
    def default_priority(self) -> int: ...
    @property
    def inline_below_us(self) -> int: ...
    @property
    def queued_rows(self) -> int: ...
    @property
    def queued_bytes(self) -> int: ...
    @property
    def n_queued(self) -> int: ...
    @property
    def n_running(self) -> int: ...
    @property
    def twin(self) -> Lane | None: ...
    @property
    def is_background(self) -> bool: ...
    @property
    def n_open(self) -> int: ...
    def relay_began(self) -> None: ...
    def relay_ended(self, arm: Arm | None, code: int, took_us: int) -> None: ...
    @property
    def runner(self) -> _Run | None: ...
    @property
    def is_idle(self) -> bool: ...
    def close(self) -> None: ...
    def release(self) -> None: ...
    @property
    def costs(self) -> tuple[int, int, float]: ...
    def learn(self, rows: int, us: float) -> None: ...
    def resize(self, instances: int) -> None: ...
    def predicted_us(self, rows: int) -> float: ...
    def statistics(self) -> dict[str, Any]: ...
