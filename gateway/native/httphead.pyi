from typing import Any, final

from typing_extensions import Buffer

MAX_HEAD_BYTES: int

@final
class Head:
    @property
    def target(self) -> bytes: ...
    @property
    def fields(self) -> dict[bytes, bytes]: ...
    @property
    def n_body(self) -> int: ...
    handler: Any
    args: Any

def read_request(data: Buffer, at: int, last: Head | None) -> tuple[Head, bytes, int] | None: ...
