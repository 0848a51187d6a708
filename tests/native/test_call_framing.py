"""gRPC messages and the DATA frames that carry them: any cut of the one over the other is legal."""

from __future__ import annotations

import pytest

from tests.support.exchange import (
    INTERNAL,
    INVALID_ARGUMENT,
    NOT_FOUND,
    OK,
    RESOURCE_EXHAUSTED,
    UNIMPLEMENTED,
    Exchange,
    infer_request,
    infer_response,
    values_of,
)
from tests.support.frames import END_STREAM, HEADERS, data, frame, grpc_message, request_fields

REQUEST = infer_request([1, 2, 3], request_id="seven")


def assert_right(exchange: Exchange, stream: int = 1) -> None:
    answer = exchange[stream]
    assert (answer.status, answer.text) == (OK, "")
    assert answer.is_ended
    assert [values_of(message) for message in answer.messages] == [[2, 4, 6]]


def test_a_whole_call_is_answered_with_headers_one_message_and_trailers(cut: str) -> None:
    with Exchange(cut) as exchange:
        answer = exchange.ask(REQUEST)
        assert_right(exchange)
        assert answer.blocks == [{":status": "200", "content-type": "application/grpc"}, {"grpc-status": "0"}]
        response = infer_response(answer.messages[0])
        assert (response.model_name, response.model_version, response.id) == ("m", "1", "seven")
        assert exchange.plane.n_requests == 1
        assert exchange.n_run == 1


@pytest.mark.parametrize("size", [1, 2, 5, 7])
def test_a_message_may_be_spread_over_many_data_frames(cut: str, size: int) -> None:
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.open(1), exchange.peer.body(1, grpc_message(REQUEST), size=size))
        assert_right(exchange)


@pytest.mark.parametrize("padding", [0, 1, 255])
def test_padding_is_not_part_of_the_message(cut: str, padding: int) -> None:
    body = grpc_message(REQUEST)
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.open(1, padding=padding))
        for at in range(0, len(body), 10):
            exchange.say(data(1, body[at : at + 10], padding=padding))
        exchange.run(data(1, b"", end=True, padding=padding))
        assert_right(exchange)


def test_window_taken_by_padding_is_returned() -> None:
    with Exchange(stream_window_bytes=65_535, connection_window_bytes=65_535) as exchange:
        exchange.run(exchange.peer.open(1))
        for _ in range(2000):
            exchange.run(data(1, b"", padding=255))
        assert exchange.peer.granted[1] > 2000 * 256 - 65_535
        exchange.run(data(1, grpc_message(REQUEST), end=True))
        assert_right(exchange)


def test_empty_data_frames_between_pieces_change_nothing(cut: str) -> None:
    body = grpc_message(REQUEST)
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.open(1), data(1), data(1, body[:3]), data(1), data(1, body[3:]), data(1, end=True))
        assert_right(exchange)


@pytest.mark.parametrize("n_pieces", [2, 5, 9])
def test_a_header_block_may_continue_in_other_frames(cut: str, n_pieces: int) -> None:
    """nghttp2 counts not the CONTINUATION frames but the reads that bring a piece of their 9-byte heads, so dribbled
    ones need room.
    """
    with Exchange(cut, max_continuations=8 if cut == "whole" else 9 * 8) as exchange:
        exchange.run(exchange.peer.open(1, pieces=n_pieces), exchange.peer.body(1, grpc_message(REQUEST)))
        assert_right(exchange)


def test_a_priority_in_the_headers_is_ignored(cut: str) -> None:
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.open(1, has_priority=True, padding=9), exchange.peer.body(1, grpc_message(REQUEST)))
        assert_right(exchange)


def test_trailers_of_the_caller_end_its_stream(cut: str) -> None:
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.open(1), exchange.peer.body(1, grpc_message(REQUEST), end=False))
        assert exchange[1].order == ""
        exchange.run(exchange.peer.headers(1, [("x-checksum", "17")], end=True))
        assert_right(exchange)


def test_a_header_block_after_the_headers_that_does_not_end_the_stream_resets_it(cut: str) -> None:
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.open(1), exchange.peer.headers(1, [("x-checksum", "17")]))
        assert exchange[1].is_over
        assert exchange.plane.n_requests == 0


def test_an_answer_waits_for_the_end_of_the_request_stream(cut: str) -> None:
    """Only the end proves that the message is the only one."""
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.open(1), exchange.peer.body(1, grpc_message(REQUEST), end=False))
        assert exchange.plane.n_requests == 0
        exchange.run(data(1, end=True))
        assert_right(exchange)


def test_several_calls_interleave_frame_by_frame(cut: str) -> None:
    with Exchange(cut, hold=True) as exchange:
        bodies = {stream: grpc_message(infer_request([stream, stream + 0.5])) for stream in range(1, 21, 2)}
        for stream in bodies:
            exchange.say(exchange.peer.open(stream))
        for at in range(0, max(map(len, bodies.values())), 11):
            for stream, body in bodies.items():
                if at < len(body):
                    exchange.say(data(stream, body[at : at + 11], end=at + 11 >= len(body)))
        exchange.run()
        exchange.release()
        for stream in bodies:
            assert [values_of(message) for message in exchange[stream].messages] == [[stream * 2, stream * 2 + 1]]
            assert exchange[stream].status == OK


# --- what is not one message ----------------------------------------


def refused(exchange: Exchange, code: int, *words: str, stream: int = 1) -> None:
    """A trailers-only answer with that code, whose text holds these words; nothing was admitted."""
    answer = exchange[stream]
    assert answer.status == code, f"got {answer.status} {answer.text!r}"
    assert answer.is_trailers_only
    assert answer.blocks[0][":status"] == "200"
    assert answer.blocks[0]["content-type"] == "application/grpc"
    for word in words:
        assert word in answer.text
    assert exchange.n_run == 0


def test_two_messages_on_a_unary_call_are_refused(cut: str) -> None:
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.open(1), exchange.peer.body(1, grpc_message(REQUEST) * 2))
        refused(exchange, UNIMPLEMENTED, "second")


def test_no_message_on_a_unary_call_is_refused(cut: str) -> None:
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.open(1), data(1, end=True))
        refused(exchange, UNIMPLEMENTED, "no request message")


def test_headers_that_end_a_unary_call_are_refused(cut: str) -> None:
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.open(1, end=True))
        refused(exchange, UNIMPLEMENTED, "no request message")


@pytest.mark.parametrize("kept", [1, 4, 5, 6, -1])
def test_the_end_of_the_stream_inside_a_message_is_refused(cut: str, kept: int) -> None:
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.open(1), data(1, grpc_message(REQUEST)[:kept], end=True))
        refused(exchange, INTERNAL, "ended inside a message")


def test_an_empty_message_is_a_request_without_a_model(cut: str) -> None:
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.open(1), data(1, grpc_message(b""), end=True))
        refused(exchange, NOT_FOUND, "model_name is empty")
        assert exchange.plane.n_requests == exchange.plane.n_refused == 1


def test_bytes_that_are_not_protobuf_are_refused_by_type_and_place(cut: str) -> None:
    with Exchange(cut) as exchange:
        exchange.ask(b"\x0a\x01m\xff\xff")
        refused(exchange, INVALID_ARGUMENT, "inference.ModelInferRequest", "byte")


@pytest.mark.parametrize("flag", [2, 0x80, 0xFF])
def test_an_unknown_message_flag_is_refused(cut: str, flag: int) -> None:
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.open(1), data(1, grpc_message(REQUEST, flag=flag), end=True))
        refused(exchange, INTERNAL, str(flag))


def test_a_message_over_the_limit_is_refused_before_it_arrives(cut: str) -> None:
    with Exchange(cut, max_message_bytes=2048) as exchange:
        exchange.run(exchange.peer.open(1), data(1, grpc_message(b"", length=2049)))
        refused(exchange, RESOURCE_EXHAUSTED, "2049", "2048", "max_message_bytes")
        assert exchange[1].reset == 0, "an upload that nobody reads must be stopped"
        assert exchange.used == 0


def test_a_message_of_exactly_the_limit_is_read(cut: str) -> None:
    request = infer_request([1, 2, 3])
    with Exchange(cut, max_message_bytes=len(request)) as exchange:
        exchange.ask(request)
        assert_right(exchange)


def test_the_largest_announced_length_is_refused_and_takes_no_memory(cut: str) -> None:
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.open(1), data(1, b"\0\xff\xff\xff\xff" + b"x" * 100))
        refused(exchange, RESOURCE_EXHAUSTED, str(2**32 - 1))


def test_what_follows_a_refusal_is_ignored_and_harms_no_other_call(cut: str) -> None:
    with Exchange(cut) as exchange:
        exchange.run(
            exchange.peer.open(1),
            exchange.peer.open(3),
            data(1, b"\7"),
            data(1, b"\0" * 999),
            data(3, grpc_message(REQUEST), end=True),
            data(1, b"more", end=True),
        )
        assert_right(exchange, 3)
        assert exchange[1].status == INTERNAL
        assert exchange.session.n_open == 0


def test_data_on_a_stream_that_was_never_opened_ends_the_session(cut: str) -> None:
    with Exchange(cut) as exchange:
        exchange.run(data(1, b"hello"))
        assert exchange.peer.goaways
        assert exchange.session.finished


def test_a_frame_after_the_end_of_the_request_stream_does_not_reach_the_message(cut: str) -> None:
    with Exchange(cut, hold=True) as exchange:
        exchange.run(exchange.peer.call(1, REQUEST))
        exchange.run(frame(HEADERS, 4 | END_STREAM, 1, exchange.peer.encoder.encode(request_fields())))
        exchange.release()
        assert exchange.n_run <= 1
        assert not exchange[1].messages or values_of(exchange[1].messages[0]) == [2, 4, 6]
