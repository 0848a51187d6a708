from typing import final

REASON_NAMES: tuple[str, ...]

@final
class Door:
    def refuse(self, reason: str, code: int, is_infer: bool) -> None: ...
    @property
    def reasons(self) -> dict[str, int]: ...
    @property
    def codes(self) -> dict[int, int]: ...
