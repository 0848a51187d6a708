from collections.abc import Callable, Iterable
from typing import Any, final

from gateway.native.body import Body
from gateway.native.request import Caller

@final
class Exchange(Caller):
    def __init__(self, done: Callable[[Body | None, int, str], object]) -> None: ...
    def cancel(self) -> None: ...

def encode_request(
    model: str,
    version: str,
    id: str,
    inputs: list[tuple[str, str, Any, Any]],
    outputs: Iterable[str],
    priority: int = 0,
    timeout_us: int = 0,
    parameters: Iterable[tuple[str, str | bool | int | float]] = (),
) -> Body: ...
def decode_answer(
    body: Body,
) -> tuple[str, str, str, list[tuple[str, str, list[int], memoryview]], dict[str, bool | int | str]]: ...
