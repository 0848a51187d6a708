import socket
from typing import final

@final
class Responder:
    def __new__(cls, sockets: list[socket.socket], answer: bytes) -> Responder: ...
    def run(self) -> None: ...
