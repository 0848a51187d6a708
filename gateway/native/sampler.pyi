from collections.abc import Callable

_Record = Callable[
    [str, str, str, int, int, int, int, int, str, bytes | None, list[tuple[str, str]]],
    object,
]

class Sampler:
    record: _Record | None
    every: int
