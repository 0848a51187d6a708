from typing import Any

from typing_extensions import Buffer

CONTENTS_NAMES: tuple[str, ...]

def parse(data: Buffer) -> dict[str, Any]: ...
