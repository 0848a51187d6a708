"""The status of a call on the wire: trailers, trailers-only, and grpc-message in percent-encoding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidArgument
from tests.support.exchange import INVALID_ARGUMENT, NOT_FOUND, OK, Exchange, infer_request
from tests.support.frames import data, grpc_message

PATH = "/t/T"


def answer_of(text: str, sends: int = 0) -> Exchange:
    """A call that ends with INVALID_ARGUMENT and that text, after so many messages."""

    class Handler:
        def __init__(self, stream: object) -> None:
            self.stream = stream

        def on_half_close(self) -> None:
            for _ in range(sends):
                self.stream.send(b"x")  # type: ignore[attr-defined]
            self.stream.finish(INVALID_ARGUMENT, text)  # type: ignore[attr-defined]

    exchange = Exchange(streaming={PATH: Handler})
    exchange.run(exchange.peer.open(1, PATH, end=True))
    return exchange


@pytest.mark.parametrize("sends", [0, 1])
@pytest.mark.parametrize(
    ("text", "wire"),
    [
        ("plain ASCII ~!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}", "plain ASCII ~!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}"),
        ("100%", "100%25"),
        ("%41", "%2541"),
        ("a\nb\r\tc\0\x7f", "a%0Ab%0D%09c%00%7F"),
        ("größer", "gr%C3%B6%C3%9Fer"),
        ("模型", "%E6%A8%A1%E5%9E%8B"),
        ("\U0001f600", "%F0%9F%98%80"),
        ("lone \ud800 surrogate", "lone ? surrogate"),
    ],
)
def test_grpc_message_is_percent_encoded_utf8(text: str, wire: str, sends: int) -> None:
    with answer_of(text, sends) as exchange:
        answer = exchange[1]
        assert answer.status == INVALID_ARGUMENT
        assert answer.blocks[-1]["grpc-message"] == wire
        assert answer.is_trailers_only == (sends == 0)


@given(st.text(max_size=50))
def test_any_text_survives_percent_encoding(text: str) -> None:
    with answer_of(text) as exchange:
        wire = exchange[1].blocks[-1].get("grpc-message", "")
        assert all(" " <= letter <= "~" for letter in wire)
        assert exchange[1].text == text.encode("utf-8", "replace").decode()


def test_an_answer_without_text_has_no_grpc_message() -> None:
    with answer_of("") as exchange:
        assert exchange[1].blocks == [{":status": "200", "content-type": "application/grpc", "grpc-status": "3"}]


@pytest.mark.parametrize("letter", ["m", "\n", "ö", "模"])
@pytest.mark.parametrize("sends", [0, 1])
def test_a_long_text_is_cut_so_that_the_status_arrives(letter: str, sends: int) -> None:
    """A caller takes 8 KiB of headers; nghttp2 gives up on 64 KiB and would leave the call open for ever."""
    with answer_of(letter * 100_000, sends) as exchange:
        answer = exchange[1]
        assert answer.is_ended
        assert answer.status == INVALID_ARGUMENT
        assert len(answer.blocks[-1]["grpc-message"]) < 7_000
        assert letter * 100 in answer.text


@pytest.mark.parametrize("n", [100_000, 3_000_000])
def test_a_name_of_any_length_is_refused_with_a_status_that_arrives(n: int) -> None:
    with Exchange() as exchange:
        answer = exchange.ask(infer_request([1], model="m" * n))
        assert answer.status == NOT_FOUND
        answer = exchange.ask(infer_request([1], name="x" * n), stream=3)
        assert answer.status == INVALID_ARGUMENT


def test_a_refusal_is_one_header_block_and_stops_the_upload(cut: str) -> None:
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.open(1), data(1, grpc_message(b"", flag=9)))
        answer = exchange[1]
        assert answer.order == "HR"
        assert (answer.is_ended, answer.reset) == (True, 0)


def test_a_refusal_after_the_whole_request_needs_no_reset(cut: str) -> None:
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.call(1, b"junk"))
        assert exchange[1].order == "H"
        assert exchange[1].status == INVALID_ARGUMENT


def test_an_error_raised_by_a_unary_handler_is_trailers_only(cut: str) -> None:
    def refuse(message: bytes) -> bytes:
        raise InvalidArgument("no: 50% off")

    with Exchange(cut, unary={PATH: refuse}) as exchange:
        answer = exchange.ask(b"hello", PATH)
        assert answer.is_trailers_only
        assert (answer.status, answer.text) == (INVALID_ARGUMENT, "no: 50% off")


def test_a_good_answer_has_status_zero_in_its_trailers(cut: str) -> None:
    with Exchange(cut, unary={PATH: lambda message: message[::-1]}) as exchange:
        answer = exchange.ask(b"hello", PATH)
        assert answer.messages == [b"olleh"]
        assert answer.blocks[1] == {"grpc-status": "0"}
        assert answer.status == OK
