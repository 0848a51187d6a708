"""Webhooks against a real receiver: what it gets, what its no leads to, and when it is given up."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config.alerts import Webhook, secret_of
from gateway.control import webhooks
from gateway.control.webhooks import PAUSES_S, Courier
from gateway.errors import ConfigError
from gateway.store import AlarmRecord, Delivery, Store, url_of_folder
from tests.support.receiver import Receiver, receiving

SECRET = "a secret of the operator's"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(url_of_folder(tmp_path / "state")) as one:
        yield one


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now_s


def enqueue(store: Store, clock: Clock, *endpoints: str, event: str = "e1") -> None:
    body = json.dumps({"specversion": "1.0", "id": event}).encode()
    deliveries = [Delivery(event, name, "waiting", 0, clock(), clock(), "", body) for name in endpoints]
    assert store.put_alarm(AlarmRecord(event, "fraud", "1", "open", clock(), clock(), {}), None, "drift.opened",
                           "gateway", "", deliveries)  # fmt: skip


def states(store: Store) -> dict[str, tuple[str, int, str]]:
    return {each.endpoint: (each.state, each.attempts, each.error) for each in store.deliveries()}


def test_an_event_arrives_once_as_a_cloud_event_with_a_signature_that_verifies(
    receiver: Receiver, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")
    clock = Clock()
    enqueue(store, clock, "pager")
    courier = Courier([Webhook(name="pager", url=receiver.url, secret_file=tmp_path / "secret")], clock)
    courier.run(store)
    courier.run(store)
    (got,) = receiver.received
    assert got.path == "/drift?to=us"
    assert got.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert json.loads(got.body)["id"] == got.headers["webhook-id"] == "e1"
    signed = f"e1.{int(clock())}.".encode() + got.body
    expected = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
    assert got.headers["webhook-signature"] == f"v1,{expected}"
    assert got.headers["webhook-timestamp"] == str(int(clock()))
    assert states(store) == {"pager": ("delivered", 1, "")}


def test_the_signature_is_the_example_of_standard_webhooks() -> None:
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = webhooks.signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_failure_is_tried_again_after_growing_pauses_and_then_succeeds(receiver: Receiver, store: Store) -> None:
    receiver.answers = [500, 503]
    clock = Clock()
    enqueue(store, clock, "pager")
    courier = Courier([Webhook(name="pager", url=receiver.url)], clock)
    for n_attempts, pause_s in enumerate(PAUSES_S[:2], start=1):
        courier.run(store)
        assert states(store)["pager"][:2] == ("waiting", n_attempts)
        clock.now_s += pause_s - 0.1
        courier.run(store)
        assert len(receiver.received) == n_attempts  # not yet
        clock.now_s += pause_s / 10 + 0.2
    courier.run(store)
    assert states(store) == {"pager": ("delivered", 3, "")}
    assert {got.headers["webhook-id"] for got in receiver.received} == {"e1"}


def test_after_the_last_pause_it_is_dead_and_says_why(receiver: Receiver, store: Store) -> None:
    receiver.answers = [500] * 99
    clock = Clock()
    enqueue(store, clock, "pager")
    courier = Courier([Webhook(name="pager", url=receiver.url)], clock)
    for _ in range(len(PAUSES_S) + 5):
        courier.run(store)
        clock.now_s += 24 * 3600
    assert len(receiver.received) == len(PAUSES_S) + 1
    assert states(store) == {"pager": ("dead", len(PAUSES_S) + 1, "answered 500 Internal Server Error")}


def test_a_receiver_that_is_gone_for_good_is_not_asked_again(receiver: Receiver, store: Store) -> None:
    receiver.answers = [410]
    clock = Clock()
    enqueue(store, clock, "pager")
    Courier([Webhook(name="pager", url=receiver.url)], clock).run(store)
    assert states(store) == {"pager": ("dead", 1, "answered 410 Gone")}


def test_a_receiver_may_ask_for_a_longer_pause(receiver: Receiver, store: Store) -> None:
    receiver.answers, receiver.headers = [429], {"Retry-After": "600"}
    clock = Clock()
    enqueue(store, clock, "pager")
    Courier([Webhook(name="pager", url=receiver.url)], clock).run(store)
    (waiting,) = store.deliveries("waiting")
    assert waiting.next_at == clock() + 600.0


def test_a_redirect_is_a_failure_and_is_not_followed(receiver: Receiver, store: Store) -> None:
    receiver.answers, receiver.headers = [307], {"Location": receiver.url}
    clock = Clock()
    enqueue(store, clock, "pager")
    Courier([Webhook(name="pager", url=receiver.url)], clock).run(store)
    assert len(receiver.received) == 1
    assert states(store)["pager"][0] == "waiting"


def test_one_that_hangs_or_refuses_holds_up_no_other(receiver: Receiver, store: Store) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        refused = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
        clock = Clock()
        with receiving() as hung:
            hung.stall.clear()
            enqueue(store, clock, "hung", "refused", "well", "unknown")
            hooks = [
                Webhook(name="hung", url=hung.url, timeout="300ms"), Webhook(name="refused", url=refused),
                Webhook(name="well", url=receiver.url),
            ]  # fmt: skip
            Courier(hooks, clock).run(store)
    found = states(store)
    assert found["well"] == ("delivered", 1, "")
    assert found["hung"] == ("waiting", 1, "no answer within 0.3 s")
    assert found["refused"][2].startswith("ConnectionRefusedError")
    assert found["unknown"] == ("dead", 1, "no webhook of that name is configured any more")


def test_while_one_is_down_its_other_events_wait_without_an_attempt(receiver: Receiver, store: Store) -> None:
    receiver.answers = [500]
    clock = Clock()
    enqueue(store, clock, "pager", event="e1")
    enqueue(store, clock, "pager", event="e2")
    Courier([Webhook(name="pager", url=receiver.url)], clock).run(store)
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file"),
        ("short", "got 5 bytes, expected 16 or more"),
        ("whsec_%%%", "expected base64 after whsec_"),
    ],
)
def test_a_secret_that_is_no_good_is_refused_by_file_and_nothing_is_sent_unsigned(
    receiver: Receiver, tmp_path: Path, content: str | None, says: str
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_text(content)
    hook = Webhook(name="pager", url=receiver.url, secret_file=path)
    with pytest.raises(ConfigError, match=says):
        secret_of(hook)
    assert str(path) in webhooks.send(hook, "e1", b"{}", 1.0).error
    assert receiver.received == []
