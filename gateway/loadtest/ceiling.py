"""What this generator can reach here at all: the same requests against a peer that answers with ready bytes.

Nobody must mistake the generator for the server: a server near this ceiling is not what was measured. The peer is a
process of its own, as the server is, and shares the same cores with the generator.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import gateway
from gateway.loadtest import measure
from gateway.native.responder import Responder

START_S = 20.0


def find(messages: Sequence[bytes], answer_bytes: int, shape: measure.Shape, seconds: float) -> float:
    """Requests a second, in a closed loop of the same shape, answers of `answer_bytes`."""
    command = [sys.executable, "-P", "-m", __name__, str(shape.connections), str(answer_bytes)]
    # The peer must be of this very code, and -P keeps a stray gateway.py of the current folder out.
    environment = {**os.environ, "PYTHONPATH": str(Path(gateway.__file__).resolve().parent.parent)}
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            if not line:
                raise measure.LoadFailed("the generator's own peer did not start; --no-ceiling goes without")
            closed = replace(shape, rate_per_s=None, seconds=seconds, warmup_s=min(shape.warmup_s, 0.5))
            return measure.run("127.0.0.1", int(line), messages, closed, keep_answers=False).requests_per_s
        finally:
            process.kill()


def _serve(connections: int, answer_bytes: int) -> None:
    """One life of the peer: its port on standard output, then answers until the connections are closed."""
    with socket.create_server(("127.0.0.1", 0), backlog=connections) as listener:
        listener.settimeout(START_S)
        print(listener.getsockname()[1], flush=True)
        links = []
        for _ in range(connections):
            link, _ = listener.accept()
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link.setblocking(False)
            links.append(link)
        Responder(links, measure.frame(bytes(max(0, answer_bytes - 5)))).run()


if __name__ == "__main__":
    _serve(int(sys.argv[1]), int(sys.argv[2]))
