"""grpc.health.v1: Check for server and models, Watch at once and on each change."""

from __future__ import annotations

import pytest

from gateway import pb
from gateway.errors import Code, NotFound
from gateway.serving.catalog import Catalog, State
from gateway.serving.rpc import Services
from gateway.serving.stream import StreamHandler
from tests.support.streams import RecordedStream

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3


def request(service: str) -> bytes:
    serialized: bytes = pb.health.HealthCheckRequest(service=service).SerializeToString()
    return serialized


def check(catalog: Catalog, service: str) -> int:
    answer = Services(catalog, "1").unary["/grpc.health.v1.Health/Check"](request(service))
    status: int = pb.health.HealthCheckResponse.FromString(answer).status
    return status


def open_watch(catalog: Catalog) -> tuple[StreamHandler, RecordedStream]:
    path = "/grpc.health.v1.Health/Watch"
    stream = RecordedStream(path)
    return Services(catalog, "1").streaming[path](stream), stream


def watch(catalog: Catalog, service: str) -> tuple[StreamHandler, RecordedStream]:
    handler, stream = open_watch(catalog)
    handler.on_message(request(service))
    handler.on_half_close()
    return handler, stream


def statuses(stream: RecordedStream) -> list[int]:
    return [pb.health.HealthCheckResponse.FromString(message).status for message in stream.sent]


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService"])
def test_the_server_serves_once_it_is_ready(service: str) -> None:
    catalog = Catalog()
    entry = catalog.add("m", "1")
    assert check(catalog, service) == NOT_SERVING
    catalog.move(entry, State.READY)
    catalog.started = True
    assert check(catalog, service) == SERVING
    catalog.draining = True
    assert check(catalog, service) == NOT_SERVING


def test_a_model_serves_when_one_of_its_versions_is_ready() -> None:
    catalog = Catalog()
    first, second = catalog.add("m", "1"), catalog.add("m", "2")
    assert check(catalog, "m") == NOT_SERVING
    catalog.move(first, State.UNAVAILABLE)
    catalog.move(second, State.READY)
    assert check(catalog, "m") == SERVING
    catalog.draining = True
    assert check(catalog, "m") == NOT_SERVING


def test_an_unknown_service_is_not_found_with_what_is_known() -> None:
    catalog = Catalog()
    catalog.add("m", "1")
    with pytest.raises(NotFound, match=r"^service 'x' not found; known here: '', 'inference.*', 'm'$"):
        check(catalog, "x")


def test_watch_answers_at_once_then_on_each_change_only() -> None:
    catalog = Catalog()
    entry, other = catalog.add("m", "1"), catalog.add("other", "1")
    _, stream = watch(catalog, "m")
    assert statuses(stream) == [NOT_SERVING]
    catalog.move(other, State.READY)  # nothing changes for m
    catalog.started = True
    assert statuses(stream) == [NOT_SERVING]
    catalog.move(entry, State.READY)
    catalog.move(entry, State.UNLOADING)
    catalog.move(entry, State.UNAVAILABLE)
    assert statuses(stream) == [NOT_SERVING, SERVING, NOT_SERVING]
    assert stream.finished is None


def test_watching_an_unknown_service_stays_open_until_it_exists() -> None:
    catalog = Catalog()
    _, stream = watch(catalog, "late")
    assert statuses(stream) == [SERVICE_UNKNOWN]
    catalog.move(catalog.add("late", "1"), State.READY)
    assert statuses(stream) == [SERVICE_UNKNOWN, NOT_SERVING, SERVING]
    assert stream.finished is None


def test_a_drain_is_told_and_ends_every_watch() -> None:
    catalog = Catalog()
    catalog.move(catalog.add("m", "1"), State.READY)
    catalog.started = True
    streams = [watch(catalog, service)[1] for service in ("", "m", "unknown")]
    catalog.draining = True
    told = [SERVING, NOT_SERVING]
    assert [statuses(stream) for stream in streams] == [told, told, [SERVICE_UNKNOWN]]
    assert [stream.finished and stream.finished[0] for stream in streams] == [Code.UNAVAILABLE] * 3


def test_a_watch_that_begins_during_the_drain_is_answered_and_ended() -> None:
    catalog = Catalog()
    catalog.draining = True
    _, stream = watch(catalog, "")
    assert statuses(stream) == [NOT_SERVING]
    assert stream.finished
    assert stream.finished[0] == Code.UNAVAILABLE


def test_a_cancelled_watch_hears_nothing_more_and_is_released() -> None:
    catalog = Catalog()
    entry = catalog.add("m", "1")
    handler, stream = watch(catalog, "m")
    handler.on_cancel()
    catalog.move(entry, State.READY)
    catalog.draining = True
    assert (statuses(stream), stream.finished) == ([NOT_SERVING], None)
    assert not catalog._subscribers


def test_a_watch_without_a_request_message_is_refused() -> None:
    handler, stream = open_watch(Catalog())
    handler.on_half_close()
    assert stream.finished == (3, "Health/Watch: got no request message, expected one HealthCheckRequest")


def test_a_second_request_message_ends_the_watch() -> None:
    catalog = Catalog()
    handler, stream = watch(catalog, "")
    handler.on_message(request(""))
    handler.on_message(request(""))  # what is still on its way is ignored
    assert stream.finished
    assert stream.finished[0] == Code.INVALID_ARGUMENT
    assert not catalog._subscribers


def test_a_malformed_request_ends_the_watch_by_type_name() -> None:
    handler, stream = open_watch(Catalog())
    handler.on_message(b"\x0a\xff")
    handler.on_half_close()
    assert stream.finished
    assert stream.finished[0] == Code.INVALID_ARGUMENT
    assert "grpc.health.v1.HealthCheckRequest" in stream.finished[1]
