"""Compressed messages, both ways: gzip and deflate as gRPC means them, and every way in which they can be wrong."""

from __future__ import annotations

import gzip
import zlib

import pytest

from tests.support.exchange import (
    INTERNAL,
    OK,
    RESOURCE_EXHAUSTED,
    UNIMPLEMENTED,
    Exchange,
    infer_request,
    stream_response,
    values_of,
)
from tests.support.frames import INFER, STREAM_INFER, compressed, data, grpc_message

SHORT = infer_request([1, 2, 3])
LONG = infer_request([float(i % 7) for i in range(500)])
ENCODINGS = pytest.mark.parametrize("encoding", ["gzip", "deflate"])


def ask(exchange: Exchange, body: bytes, *more: tuple[str, str]) -> None:
    exchange.run(exchange.peer.open(1, INFER, *more), exchange.peer.body(1, body))


def refused(exchange: Exchange, code: int, *words: str) -> None:
    answer = exchange[1]
    assert answer.status == code, f"got {answer.status} {answer.text!r}"
    assert answer.is_trailers_only
    for word in words:
        assert word in answer.text
    assert exchange.n_run == 0
    assert exchange.used == 0


@ENCODINGS
def test_a_compressed_request_is_read(cut: str, encoding: str) -> None:
    with Exchange(cut) as exchange:
        ask(exchange, compressed(SHORT, encoding), ("grpc-encoding", encoding))
        assert exchange[1].status == OK
        assert values_of(exchange[1].messages[0]) == [2, 4, 6]


@ENCODINGS
def test_a_long_answer_comes_in_the_encoding_that_the_caller_used(cut: str, encoding: str) -> None:
    with Exchange(cut) as exchange:
        ask(exchange, compressed(LONG, encoding), ("grpc-encoding", encoding))
        assert exchange[1].blocks[0]["grpc-encoding"] == encoding
        [(flag, packed)] = exchange[1].flagged
        assert flag == 1
        assert len(packed) < 500
        assert values_of(exchange[1].messages[0]) == [i % 7 * 2 for i in range(500)]


@ENCODINGS
def test_a_short_answer_is_not_worth_compressing(encoding: str) -> None:
    with Exchange() as exchange:
        ask(exchange, compressed(SHORT, encoding), ("grpc-encoding", encoding))
        assert [flag for flag, _ in exchange[1].flagged] == [0]


def test_an_answer_is_not_compressed_for_a_caller_that_did_not(cut: str) -> None:
    with Exchange(cut) as exchange:
        ask(exchange, grpc_message(LONG), ("grpc-accept-encoding", "gzip, deflate"))
        assert "grpc-encoding" not in exchange[1].blocks[0]
        assert [flag for flag, _ in exchange[1].flagged] == [0]


@ENCODINGS
def test_an_uncompressed_message_is_legal_under_an_encoding(cut: str, encoding: str) -> None:
    with Exchange(cut) as exchange:
        ask(exchange, grpc_message(SHORT), ("grpc-encoding", encoding))
        assert values_of(exchange[1].messages[0]) == [2, 4, 6]


def test_identity_is_an_encoding(cut: str) -> None:
    with Exchange(cut) as exchange:
        ask(exchange, grpc_message(SHORT), ("grpc-encoding", "identity"))
        assert values_of(exchange[1].messages[0]) == [2, 4, 6]


def test_an_unknown_encoding_is_refused_and_the_known_ones_are_listed(cut: str) -> None:
    with Exchange(cut) as exchange:
        ask(exchange, grpc_message(SHORT), ("grpc-encoding", "snappy"))
        refused(exchange, UNIMPLEMENTED, "snappy", "gzip")
        listed = exchange[1].blocks[0]["grpc-accept-encoding"].split(",")
        assert sorted(listed) == ["deflate", "gzip", "identity"]


@pytest.mark.parametrize("more", [(), (("grpc-encoding", "identity"),)], ids=["none", "identity"])
def test_a_message_said_to_be_compressed_without_an_encoding_is_refused(
    cut: str, more: tuple[tuple[str, str], ...]
) -> None:
    with Exchange(cut) as exchange:
        ask(exchange, compressed(SHORT, "gzip"), *more)
        refused(exchange, INTERNAL, "compressed", "grpc-encoding")


@ENCODINGS
@pytest.mark.parametrize("lost", [1, 8, 30])
def test_compressed_data_that_is_cut_short_is_refused(cut: str, encoding: str, lost: int) -> None:
    packed = (gzip.compress if encoding == "gzip" else zlib.compress)(SHORT)
    with Exchange(cut) as exchange:
        ask(exchange, grpc_message(packed[:-lost], flag=1), ("grpc-encoding", encoding))
        refused(exchange, INTERNAL, encoding)


@ENCODINGS
@pytest.mark.parametrize("junk", [b"", b"\0", b"not compressed at all", b"\x1f\x8b\x08\0", b"\x78\x9c"])
def test_bytes_that_no_compressor_made_are_refused(cut: str, encoding: str, junk: bytes) -> None:
    with Exchange(cut) as exchange:
        ask(exchange, grpc_message(junk, flag=1), ("grpc-encoding", encoding))
        refused(exchange, INTERNAL, encoding)


def test_a_wrong_checksum_is_refused(cut: str) -> None:
    packed = bytearray(gzip.compress(SHORT, mtime=0))
    packed[-6] ^= 1
    with Exchange(cut) as exchange:
        ask(exchange, grpc_message(bytes(packed), flag=1), ("grpc-encoding", "gzip"))
        refused(exchange, INTERNAL, "gzip")


@ENCODINGS
def test_deflate_and_gzip_are_not_taken_for_each_other(encoding: str) -> None:
    other = {"gzip": "deflate", "deflate": "gzip"}[encoding]
    with Exchange() as exchange:
        ask(exchange, compressed(SHORT, other), ("grpc-encoding", encoding))
        refused(exchange, INTERNAL, encoding)


@ENCODINGS
def test_a_bomb_is_refused_at_the_message_limit(encoding: str) -> None:
    """50 MB in 50 kB; the limit holds what comes out, too."""
    bomb = compressed(bytes(50_000_000), encoding)
    assert len(bomb) < 100_000
    with Exchange(max_message_bytes=100_000) as exchange:
        ask(exchange, bomb, ("grpc-encoding", encoding))
        refused(exchange, RESOURCE_EXHAUSTED, "100000", "decompression", "max_message_bytes")


def test_a_message_that_decompresses_to_exactly_the_limit_is_read() -> None:
    with Exchange(max_message_bytes=len(LONG)) as exchange:
        ask(exchange, compressed(LONG, "gzip"), ("grpc-encoding", "gzip"))
        assert exchange[1].status == OK
    with Exchange(max_message_bytes=len(LONG) - 1) as exchange:
        ask(exchange, compressed(LONG, "gzip"), ("grpc-encoding", "gzip"))
        refused(exchange, RESOURCE_EXHAUSTED)


def test_what_a_message_decompresses_to_counts_as_in_flight() -> None:
    packed = compressed(bytes(5000), "gzip")
    with Exchange(max_in_flight_bytes=4000) as exchange:
        ask(exchange, packed, ("grpc-encoding", "gzip"))
        refused(exchange, RESOURCE_EXHAUSTED, "5000", "4000", "max_in_flight_bytes")


@ENCODINGS
def test_messages_of_a_stream_are_compressed_one_by_one(cut: str, encoding: str) -> None:

    with Exchange(cut) as exchange:
        body = compressed(LONG, encoding) + grpc_message(SHORT) + compressed(SHORT, encoding)
        exchange.run(exchange.peer.open(1, STREAM_INFER, ("grpc-encoding", encoding)), exchange.peer.body(1, body))
        assert exchange[1].status == OK
        assert [flag for flag, _ in exchange[1].flagged] == [1, 0, 0]
        sizes = [
            len(stream_response(message).infer_response.raw_output_contents[0]) for message in exchange[1].messages
        ]
        assert sizes == [2000, 12, 12]


def test_a_broken_message_ends_its_call_and_no_other(cut: str) -> None:
    with Exchange(cut) as exchange:
        exchange.run(
            exchange.peer.open(1, INFER, ("grpc-encoding", "gzip")),
            exchange.peer.open(3, INFER, ("grpc-encoding", "gzip")),
            data(1, grpc_message(b"junk", flag=1)),
            data(3, compressed(SHORT, "gzip"), end=True),
            data(1, end=True),
        )
        assert exchange[1].status == INTERNAL
        assert exchange[3].status == OK
