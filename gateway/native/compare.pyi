from collections.abc import Sequence
from typing import Any

from typing_extensions import Buffer

def compare_tensors(
    datatype: str,
    shape: Sequence[int],
    data: Buffer,
    other_datatype: str,
    other_shape: Sequence[int],
    other_data: Buffer,
    absolute: float = 0.0,
    relative: float = 0.0,
) -> dict[str, Any]: ...
def read_tensors(body: Buffer, streamed: bool = False) -> list[tuple[str, str, list[int], bytes]] | None: ...
