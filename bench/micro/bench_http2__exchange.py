"""ns per call to feed its frames to a session, answer it, and pull the answer: 30 floats in, 1 and 16 calls a read."""

from __future__ import annotations

import struct

from bench import payloads
from bench.http2 import NEXT_HEADER_BLOCK, PREFACE, SETTINGS, first_header_block, frame
from bench.micro.bench_codec__parse import REQUESTS
from bench.micro.compiled import loops
from bench.micro.harness import Operation

ANSWER_BYTES = 60
WIDE = struct.pack(">HI", 4, 1 << 30)
WINDOW_UPDATE = 8


def operations() -> list[Operation]:
    preface = PREFACE + frame(SETTINGS, 0, 0, WIDE) + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 30))
    request = payloads.grpc_frame(REQUESTS["30 floats"])
    answer = payloads.grpc_frame(bytes(ANSWER_BYTES - 5))
    found = []
    for n in (1, 16):
        exchange = loops().Exchange(
            preface, first_header_block("127.0.0.1:8001"), NEXT_HEADER_BLOCK, request, answer, n
        )
        found.append(Operation(f"{n} a read", repeat=exchange.repeat, count=n))
    return found
