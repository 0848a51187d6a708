"""Request headers: what a gRPC server must insist on, and how it says no."""

from __future__ import annotations

import pytest

from tests.support.exchange import (
    DEADLINE_EXCEEDED,
    INVALID_ARGUMENT,
    OK,
    RESOURCE_EXHAUSTED,
    UNIMPLEMENTED,
    Exchange,
    infer_request,
)
from tests.support.frames import INFER, PROTOCOL_ERROR, REFUSED_STREAM, SERVICE, data, grpc_message, request_fields

REQUEST = infer_request([1])
BODY = grpc_message(REQUEST)


@pytest.mark.parametrize("method", ["GET", "PUT", "OPTIONS", "post", "X" * 300])
@pytest.mark.parametrize("has_body", [True, False])
def test_what_is_no_post_is_answered_405(cut: str, method: str, has_body: bool) -> None:
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.headers(1, request_fields(method=method), end=not has_body))
        if has_body:
            exchange.run(data(1, BODY, end=True))
        answer = exchange[1]
        assert (answer.http_status, answer.status) == ("405", UNIMPLEMENTED)
        assert method[:100] in answer.text
        assert len(answer.text) < 200
        assert "POST" in answer.text
        assert answer.is_trailers_only
        assert exchange.plane.n_requests == 0


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/json",
        "application/grpc-web",
        "application/grpcx",
        "application/grp",
        "Application/gRPC",
        "text/html",
    ],
)
def test_another_content_type_is_answered_415(cut: str, content_type: str | None) -> None:
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.headers(1, request_fields(content_type=content_type)), data(1, BODY, end=True))
        answer = exchange[1]
        assert (answer.http_status, answer.status) == ("415", INVALID_ARGUMENT)
        assert "application/grpc" in answer.text
        assert content_type is None or content_type in answer.text
        assert answer.is_trailers_only
        assert exchange.plane.n_requests == 0


@pytest.mark.parametrize(
    "content_type", ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"]
)
def test_grpc_content_types_are_served(content_type: str) -> None:
    with Exchange() as exchange:
        exchange.run(exchange.peer.headers(1, request_fields(content_type=content_type)), data(1, BODY, end=True))
        assert exchange[1].status == OK


@pytest.mark.parametrize(
    "path", [SERVICE + "Nothing", SERVICE + "ModelInfe", INFER + "r", INFER + "/", "/", "/x/" + "y" * 5000]
)
def test_an_unknown_method_is_unimplemented(cut: str, path: str) -> None:
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.open(1, path), data(1, BODY, end=True))
        answer = exchange[1]
        assert (answer.http_status, answer.status) == ("200", UNIMPLEMENTED)
        assert answer.is_trailers_only
        assert path[:100] in answer.text


def test_a_header_list_over_the_limit_is_refused(cut: str) -> None:
    with Exchange(cut, max_header_list_bytes=4096) as exchange:
        more = [(f"x-{number}", "y" * 100) for number in range(40)]
        exchange.run(exchange.peer.open(1, INFER, *more), data(1, BODY, end=True))
        answer = exchange[1]
        assert answer.status == RESOURCE_EXHAUSTED
        assert "4096" in answer.text
        assert "max_header_list_bytes" in answer.text
        exchange.run(exchange.peer.call(3, REQUEST))
        assert exchange[3].status == OK


def test_the_limit_counts_32_bytes_for_each_field() -> None:
    fields = request_fields()
    n_bytes = sum(len(name) + len(value) + 32 for name, value in fields)
    filler = 4096 - n_bytes - 32 - 1
    for surplus, status in ((0, OK), (1, RESOURCE_EXHAUSTED)):
        with Exchange(max_header_list_bytes=4096) as exchange:
            exchange.run(exchange.peer.open(1, INFER, ("y", "z" * (filler + surplus))), data(1, BODY, end=True))
            assert exchange[1].status == status


def test_the_limit_is_announced(cut: str) -> None:
    with Exchange(cut, max_header_list_bytes=5000, max_concurrent_streams=7, stream_window_bytes=99_999) as exchange:
        exchange.run()
        assert exchange.peer.server_settings == {3: 7, 4: 99_999, 6: 5000}


def test_a_table_trick_that_repeats_one_long_field_is_bounded() -> None:
    """One byte of HPACK stands for 4000: the count is of what it stands for."""
    with Exchange() as exchange:
        more = [("x-long", "y" * 3900)] * 2000
        exchange.run(exchange.peer.open(1, INFER, *more), data(1, BODY, end=True))
        assert exchange[1].status in (RESOURCE_EXHAUSTED, None)
        assert exchange[1].is_over or exchange.session.finished


@pytest.mark.parametrize(
    "fields",
    [
        [(":method", "POST"), (":scheme", "http"), ("content-type", "application/grpc")],
        [*request_fields(), (":path", INFER)],
        [*request_fields(), ("Upper", "x")],
        [*request_fields(), ("connection", "close")],
        [("content-type", "application/grpc"), *request_fields()[:4]],
        [*request_fields(), (":unknown", "x")],
    ],
    ids=["no path", "two paths", "upper case", "connection", "pseudo-header late", "unknown pseudo-header"],
)
def test_headers_that_http2_forbids_reset_the_stream_and_no_other(cut: str, fields: list[tuple[str, str]]) -> None:
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.headers(1, fields), exchange.peer.call(3, REQUEST))
        assert exchange[1].order == "R"
        assert exchange[1].reset == PROTOCOL_ERROR
        assert exchange[3].status == OK
        assert exchange.session.n_open == 0


def test_more_streams_than_agreed_are_refused_one_by_one_while_the_caller_cannot_know(cut: str) -> None:
    with Exchange(cut, max_concurrent_streams=3) as exchange:
        exchange.run(*[exchange.peer.open(stream) for stream in (1, 3, 5, 7, 9)])
        assert [exchange[stream].reset for stream in (7, 9)] == [REFUSED_STREAM, REFUSED_STREAM]
        assert exchange.session.n_open == 3
        exchange.run(*[data(stream, BODY, end=True) for stream in (1, 3, 5)])
        assert [exchange[stream].status for stream in (1, 3, 5)] == [OK, OK, OK]


def test_more_streams_than_acknowledged_end_the_session(cut: str) -> None:
    with Exchange(cut, max_concurrent_streams=3) as exchange:
        exchange.run()
        exchange.run()
        exchange.run(*[exchange.peer.open(stream) for stream in (1, 3, 5)])
        assert not exchange.peer.goaways
        exchange.run(exchange.peer.open(7))
        assert [one.code for one in exchange.peer.goaways] == [PROTOCOL_ERROR]
        assert exchange.session.finished


# --- grpc-timeout ----------------------------------------

UNITS_US = {"n": 0.001, "u": 1, "m": 1000, "S": 1e6, "M": 60e6, "H": 3600e6}


@pytest.mark.parametrize("unit", UNITS_US)
@pytest.mark.parametrize("number", ["1", "7", "2500", "00000009", "99999999"])
def test_a_timeout_of_every_unit_is_kept_to_the_microsecond(unit: str, number: str) -> None:
    """A handler sees the deadline; less than a microsecond is one."""
    seen = []
    due_us = -(-int(number) * int(UNITS_US[unit] * 1000) // 1000)

    class Handler:
        def __init__(self, stream: object) -> None:
            seen.append(stream.deadline_us)  # type: ignore[attr-defined]

        def on_cancel(self) -> None:
            seen.append("cancelled")

    with Exchange(streaming={"/t/T": Handler}) as exchange:
        exchange.run(exchange.peer.open(1, "/t/T", ("grpc-timeout", number + unit)))
        assert seen == [exchange.now_us + due_us]
        exchange.turn(due_us - 1)
        assert exchange[1].status is None
        exchange.turn(1)
        assert exchange[1].status == DEADLINE_EXCEEDED
        exchange.turn()
        assert seen[1:] == ["cancelled"]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "1",
        "S",
        "1s",
        "1 S",
        " 1S",
        "-1S",
        "+1S",
        "1.5S",
        "0x1S",
        "123456789S",
        "999999999n",
        "1SS",
        "1h",
        "٣S",
        "S1",
    ],
)
def test_a_timeout_that_is_none_is_refused(cut: str, value: str) -> None:
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.open(1, INFER, ("grpc-timeout", value)), data(1, BODY, end=True))
        answer = exchange[1]
        if value.strip() != value:  # HTTP forbids a field that begins with a blank
            assert answer.is_over
            return
        assert answer.status == INVALID_ARGUMENT
        assert "grpc-timeout" in answer.text
        assert "8 digits" in answer.text


@pytest.mark.parametrize("value", ["0S", "0n", "00000000H"])
def test_a_timeout_of_nothing_has_passed_already(cut: str, value: str) -> None:
    with Exchange(cut) as exchange:
        exchange.run(exchange.peer.open(1, INFER, ("grpc-timeout", value)), data(1, BODY, end=True))
        assert exchange[1].status == DEADLINE_EXCEEDED
        assert exchange.n_run == 0


def test_a_request_past_its_timeout_is_not_run(cut: str) -> None:
    with Exchange(cut, hold=True) as exchange:
        exchange.run(exchange.peer.call(1, REQUEST))  # keeps the executor busy
        exchange.run(exchange.peer.call(3, REQUEST, INFER, ("grpc-timeout", "5m")))
        exchange.turn(4_999)
        assert exchange[3].status is None
        exchange.turn(1)
        assert exchange[3].status == DEADLINE_EXCEEDED
        exchange.release()
        assert exchange[1].status == OK
        assert exchange.n_run == 1
