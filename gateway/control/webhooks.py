"""Deliveries to webhooks: CloudEvents as JSON, signed, tried again with growing pauses, and given up after a day.

The signature is that of Standard Webhooks: headers webhook-id, webhook-timestamp, webhook-signature with
base64(HMAC-SHA256(secret, id.timestamp.body)), which libraries in every language verify. An event may come twice (its
id is the same then) and, after a failure, out of order. Redirects are failures: the body was signed for that address.
"""

from __future__ import annotations

import base64
import concurrent.futures
import dataclasses
import hashlib
import hmac
import http.client
import random
import ssl
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.config.alerts import Webhook, secret_of
from gateway.errors import ConfigError
from gateway.observability import logs

if TYPE_CHECKING:
    from gateway.store import Delivery, Store

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
PAUSES_S = (5, 15, 60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600)
"""After each failed attempt; one more attempt than pauses, then the delivery is dead."""
MAX_PAUSE_S = 24 * 3600
"""However long a receiver asks us to wait."""
KEPT_S = 30 * 24 * 3600.0
MAX_ERROR = 300
GONE = 410


def signature(secret: bytes, event_id: str, timestamp_s: int, body: bytes) -> str:
    """The value of webhook-signature."""
    signed = b"%s.%d." % (event_id.encode(), timestamp_s) + body
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """Of one attempt. `error` is empty when it was taken."""

    error: str = ""
    is_final: bool = False
    """The receiver wants no more."""
    wait_s: float = 0.0
    """What it asked for."""


def send(webhook: Webhook, event_id: str, body: bytes, now_s: float) -> Outcome:
    """One attempt, in this thread."""
    parts = urlsplit(webhook.url)
    headers = {
        "Content-Type": CONTENT_TYPE,
        "User-Agent": "gateway",
        "webhook-id": event_id,
        "webhook-timestamp": str(int(now_s)),
    }
    try:
        if secret := secret_of(webhook):
            headers["webhook-signature"] = signature(secret, event_id, int(now_s), body)
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(
                parts.hostname or "", parts.port, timeout=webhook.timeout, context=context
            )
        else:
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=webhook.timeout)
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            answer.read(1024)
        finally:
            connection.close()
    except ConfigError as error:
        return Outcome(str(error))
    except TimeoutError:
        return Outcome(f"no answer within {webhook.timeout:g} s")
    except (OSError, http.client.HTTPException) as error:
        return Outcome(f"{type(error).__name__}: {error}"[:MAX_ERROR])
    if 200 <= answer.status < 300:
        return Outcome()
    wished = answer.getheader("retry-after") or ""
    wait_s = min(float(wished), MAX_PAUSE_S) if wished.isascii() and wished.isdigit() else 0.0
    return Outcome(f"answered {answer.status} {answer.reason}"[:MAX_ERROR], answer.status == GONE, wait_s)


def after(delivery: Delivery, outcome: Outcome, now_s: float, jitter: float) -> Delivery:
    """The delivery after an attempt. `jitter` in [0, 1): up to a tenth is added to a pause."""
    attempts = delivery.attempts + 1
    if not outcome.error:
        return dataclasses.replace(delivery, state="delivered", attempts=attempts, error="")
    if outcome.is_final or attempts > len(PAUSES_S):
        return dataclasses.replace(delivery, state="dead", attempts=attempts, error=outcome.error)
    pause_s = max(PAUSES_S[attempts - 1] * (1 + jitter / 10), outcome.wait_s)
    return dataclasses.replace(delivery, attempts=attempts, next_at=now_s + pause_s, error=outcome.error)


class Courier:
    """A duty of the leading control process. An endpoint that is down holds up nobody else's deliveries."""

    def __init__(self, webhooks: Sequence[Webhook], wall: Callable[[], float] = time.time) -> None:
        self._webhooks = {webhook.name: webhook for webhook in webhooks}
        self._wall = wall
        self._pruned_s = 0.0

    def run(self, store: Store) -> None:
        """Attempt what is due."""
        by_endpoint: dict[str, list[Delivery]] = {}
        for delivery in store.due_deliveries(self._wall()):
            by_endpoint.setdefault(delivery.endpoint, []).append(delivery)
        if by_endpoint:
            with concurrent.futures.ThreadPoolExecutor(len(by_endpoint), "webhook") as pool:
                for done in [pool.submit(self._serve, store, *pair) for pair in by_endpoint.items()]:
                    done.result()
        if self._wall() - self._pruned_s > 3600.0:
            self._pruned_s = self._wall()
            store.prune_deliveries(self._wall() - KEPT_S)

    def _serve(self, store: Store, endpoint: str, deliveries: Sequence[Delivery]) -> None:
        webhook = self._webhooks.get(endpoint)
        for delivery in deliveries:
            if webhook is None:
                outcome = Outcome("no webhook of that name is configured any more", is_final=True)
            else:
                outcome = send(webhook, delivery.event, delivery.body, self._wall())
            result = after(delivery, outcome, self._wall(), random.random())
            store.note_delivery(result)
            self._tell(result)
            if outcome.error and not outcome.is_final:
                return  # the others are tried when they are due again: it is most likely down

    def _tell(self, delivery: Delivery) -> None:
        fields = {"webhook": delivery.endpoint, "id": delivery.event, "attempts": delivery.attempts}
        if delivery.state == "dead":
            logs.get().error("webhook given up", **fields, error=delivery.error)
        elif delivery.error:
            again_s = round(delivery.next_at - self._wall())
            logs.get().warning("webhook failed", **fields, error=delivery.error, again_in_s=again_s)
        else:
            logs.get().info("webhook delivered", **fields)
