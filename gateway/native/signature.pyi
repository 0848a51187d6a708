from collections.abc import Sequence
from typing import Self

class Signature:
    def __new__(
        cls,
        model: str,
        version: str,
        inputs: Sequence[tuple[str, str, Sequence[int]]],
        outputs: Sequence[tuple[str, str, Sequence[int]]],
        batched: bool,
    ) -> Self: ...
    @property
    def model(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def batched(self) -> bool: ...
