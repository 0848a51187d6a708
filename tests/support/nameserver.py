"""A real DNS server, and a process that asks it: by an /etc/resolv.conf of its own, in a mount namespace of its own.

    with NameServer() as names:
        names.addresses["fleet.test"] = ["127.0.0.1", "127.0.0.2"]
        GatewayProcess(models, folder, before=asking(names, folder))

The resolver of the system, and what other processes ask it, are untouched.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import threading
from pathlib import Path

HOST, PORT = "127.53.0.1", 53  # resolv.conf has no place for a port

_A, _IN = 1, 1
_OK, _SERVER_FAILURE, _NO_SUCH_NAME = 0, 2, 3


def why_not() -> str:
    """Why a process here cannot be given a resolver of its own; empty: it can."""
    try:
        done = subprocess.run([*_unshare(), "true"], capture_output=True, text=True, timeout=10)
    except OSError as error:
        return f"unshare cannot be run: {error.strerror}"
    if done.returncode:
        return f"no mount namespace may be made here: {done.stderr.strip()}"
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((HOST, PORT))
    except OSError as error:
        return f"nobody may listen at {HOST}:{PORT} here: {error.strerror}"
    return ""


def _unshare() -> list[str]:
    return ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--mount", "--map-root-user"]


def asking(names: NameServer, folder: Path) -> list[str]:
    """What goes before a command that is to ask that server and nobody else; it keeps its process id."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "resolv.conf").write_text(f"nameserver {HOST}\noptions timeout:1 attempts:2\n")
    (folder / "nsswitch.conf").write_text("hosts: files dns\n")
    script = 'for file in resolv.conf nsswitch.conf; do mount --bind "$0/$file" "/etc/$file" || exit; done; exec "$@"'
    return [*_unshare(), "sh", "-c", script, str(folder)]


class NameServer:
    """`addresses` may be changed at any time; a name that is not in it does not exist. While `is_broken` every answer
    is SERVFAIL, and while `is_silent` there is none.
    """

    def __init__(self) -> None:
        self.addresses: dict[str, list[str]] = {}
        self.is_broken = self.is_silent = False
        self.n_asked = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((HOST, PORT))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> NameServer:
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join(10)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            question, asker = self._socket.recvfrom(4096)
            if not question:
                return
            self.n_asked += 1
            if not self.is_silent:
                self._socket.sendto(self._answer(question), asker)

    def _answer(self, message: bytes) -> bytes:
        """RFC 1035: header, the question as it came, an A record for each address."""
        labels, at = [], 12
        while length := message[at]:
            labels.append(message[at + 1 : at + 1 + length].decode())
            at += 1 + length
        (kind,) = struct.unpack_from(">H", message, at + 1)
        question = message[12 : at + 5]
        found = self.addresses.get(".".join(labels).lower())
        code = _SERVER_FAILURE if self.is_broken else _NO_SUCH_NAME if found is None else _OK
        records = [socket.inet_aton(each) for each in found or () if kind == _A] if code == _OK else []
        is_answer, recursion_desired, recursion_available = 0x8000, 0x0100, 0x0080
        flags = is_answer | recursion_desired | recursion_available | code
        header = message[:2] + struct.pack(">HHHHH", flags, 1, len(records), 0, 0)
        name, lifetime_s = 0xC00C, 0  # a pointer to the question's
        return (
            header
            + question
            + b"".join(struct.pack(">HHHIH", name, _A, _IN, lifetime_s, 4) + record for record in records)
        )
