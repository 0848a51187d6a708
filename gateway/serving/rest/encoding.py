"""gzip and deflate, both ways. What comes in may not grow beyond a bound: the bomb stops there, not after it."""

from __future__ import annotations

import zlib
from typing import Any

from gateway.errors import InvalidArgument
from gateway.serving.rest.errors import HttpError

MIN_COMPRESSED_BYTES = 1024
"""Below this an answer fits into a packet anyway."""

MAX_COMPRESSED_BYTES = 8 * 2**20
"""Above this an answer leaves as it is: compressing runs on the loop, some 10 ms for each MiB."""

LEVEL = 1
"""The quickest: an answer is read once."""

_AUTO = 15 + 32  # zlib's number for: zlib or gzip header
_RAW = -15
_WINDOW = {b"gzip": 15 + 16, b"deflate": 15}

_UNSUPPORTED_HEADERS = b"Accept-Encoding: gzip, deflate\r\n"


def decompress(body: Any, encoding: bytes, max_bytes: int) -> bytes | Any:
    """The body as it was before Content-Encoding; itself when that is identity. HttpError 415 for other codings, 413
    above `max_bytes`, InvalidArgument when it is damaged.
    """
    coding = encoding.strip().lower()
    if coding in (b"", b"identity"):
        return body
    if coding == b"x-gzip":
        coding = b"gzip"
    if coding not in _WINDOW:
        shown = encoding[:40].decode("latin-1")
        raise HttpError(415, f"Content-Encoding: got {shown!r}, expected gzip, deflate or none", _UNSUPPORTED_HEADERS)
    name = coding.decode()
    window = _AUTO
    if coding == b"deflate" and len(body) >= 2 and ((body[0] << 8 | body[1]) % 31 or body[0] & 15 != 8):
        window = _RAW  # what some clients call deflate: without zlib's header
    pieces, n, rest = [], 0, body
    while len(rest):
        machine = zlib.decompressobj(window)
        try:
            piece = machine.decompress(rest, max_bytes - n + 1)
        except zlib.error as error:
            raise InvalidArgument(f"body: is damaged {name}: {error}") from None
        n += len(piece)
        if n > max_bytes:
            raise HttpError(
                413, f"body: is more than {max_bytes} bytes after {name} decompression (limits.max_message_bytes)"
            )
        pieces.append(piece)
        if not machine.eof:
            raise InvalidArgument(f"body: the {name} data ends too early, {len(body)} bytes came")
        rest = machine.unused_data
        if rest and (coding != b"gzip" or rest[:2] != b"\x1f\x8b"):  # gzip may have several members
            raise InvalidArgument(f"body: {len(rest)} bytes follow the {name} data")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def chosen_coding(accept: bytes, is_binary: bool) -> bytes:
    """gzip, deflate or nothing for an Accept-Encoding header.

    Most HTTP libraries list every coding they know with every request. For text that is taken at its word; tensors
    hardly shrink, so a binary answer is compressed only for a client that names one coding alone.
    """
    best, best_q, n_named = b"", 0.0, 0
    for item in accept.lower().split(b","):
        coding, _, parameters = item.partition(b";")
        coding = coding.strip()
        if coding in (b"", b"identity"):
            continue
        n_named += 1
        q = _quality(parameters)
        if coding == b"*":
            coding = b"gzip"
        if coding == b"x-gzip":
            coding = b"gzip"
        if coding in _WINDOW and q > best_q:
            best, best_q = coding, q
    return b"" if is_binary and n_named != 1 else best


def _quality(parameters: bytes) -> float:
    name, _, value = parameters.strip().partition(b"=")
    if name.strip() != b"q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0


def compress(body: bytes, more: list[memoryview], coding: bytes) -> bytes:
    machine = zlib.compressobj(LEVEL, zlib.DEFLATED, _WINDOW[coding])
    return b"".join([machine.compress(body), *map(machine.compress, more), machine.flush()])
