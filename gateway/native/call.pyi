from typing import final

from gateway.native.door import Door
from gateway.native.request import Caller

WINDOW_BITS: dict[int, int]
ENCODING_NAMES: dict[int, bytes]
REQUEST_ID: bytes
COMPRESS_LEVEL: int

class Carrier:
    @property
    def door(self) -> Door: ...

@final
class Call(Caller):
    @property
    def deadline_us(self) -> int: ...
    @property
    def path(self) -> str: ...
    @property
    def is_active(self) -> bool: ...
    def send(self, message: bytes) -> None: ...
    def finish(self, code: int = 0, message: str = "") -> None: ...

@final
class StreamSlot(Caller): ...
