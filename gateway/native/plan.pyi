from typing import Self, final

from gateway.native.route import Tally, Target

def key_of(salt: bytes, key: bytes) -> int: ...

@final
class Plan:
    def __new__(
        cls,
        tally: Tally,
        generation: int,
        split: list[tuple[Target, int]],
        rules: list[tuple[bool, bytes, bool, list[bytes], list[tuple[Target, int]]]] | None = None,
        sticky: tuple[bool, bytes] | None = None,
        salt: bytes = b"",
    ) -> Self: ...
    @property
    def tally(self) -> Tally: ...
    @property
    def generation(self) -> int: ...
    @property
    def wants_headers(self) -> bool: ...
