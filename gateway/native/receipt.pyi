from typing import final

from gateway.native.request import Stamp
from gateway.native.signature import Signature

PARAMETER: str

class TokenError(ValueError):
    reason: str
    def __init__(self, reason: str, text: str) -> None: ...

@final
class Signer:
    def __init__(self, key: bytes | None = None) -> None: ...
    def use(self, key: bytes) -> None: ...
    @property
    def is_ready(self) -> bool: ...
    @property
    def n_signed(self) -> int: ...

@final
class Receipts(Stamp):
    def __init__(
        self,
        signer: Signer,
        signature: Signature,
        class_output: str | None = None,
        score_output: str | None = None,
        *,
        is_value: bool = False,
        threshold: float = 0.5,
    ) -> None: ...
    @property
    def signer(self) -> Signer: ...

def read(
    key: bytes, token: str | bytes
) -> tuple[
    bytes,
    float,
    bytes | None,
    str,
    str,
    str,
    int,
    int,
    str,
    int,
    list[tuple[int | str | None, float] | None],
]: ...
