class Refusal(Exception):
    code: int
    text: str

    def __init__(self, code: int, text: str) -> None: ...

class CircuitOpen(Refusal): ...
