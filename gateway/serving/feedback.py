"""Feedback on the data plane: the receipts that answers carry, and who takes the reports that come back by them.

Native code makes receipts; here is only what a version's are made of. Reports are not requests: they come by gRPC or
REST on the same ports, and are written by a thread of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from gateway import pb
from gateway.errors import Code, GatewayError, Unavailable
from gateway.feedback import form
from gateway.feedback.desk import Desk, settle
from gateway.feedback.prediction import Prediction
from gateway.feedback.report import Report, Result, Status
from gateway.native import receipt
from gateway.native.lane import Lane
from gateway.native.links import Links
from gateway.native.receipt import Receipts, Signer
from gateway.native.signature import Signature
from gateway.serving.rest.message import Request
from gateway.serving.stream import SlowUnary, Stream, StreamHandler, parse
from gateway.store.records import Report as StoredReport

if TYPE_CHECKING:
    from gateway.store import Store

SERVICE = "/gateway.v1.Feedback/"
LINK_KIND = "link"
LINKS_EVERY_S = 2.0
MAX_LINKS = 50
"""Shadow pairs in that time, drawn evenly: a label comes for few of them, and each is kept for a day (90 MB of the
store for each worker whose shadows never rest).
"""
MAX_TOLD = 100
"""Of the refused reports of a stream."""

Errand = Callable[[Callable[["Store"], None]], None]


class Feedback:
    """One per worker. `url` is the store's, None without one: then no answer carries a receipt, and reports are
    refused. `errand(work)` has the agent do something with the store.
    """

    def __init__(self, url: str | None, state: Path | None, wake: Callable[[], None]) -> None:
        self._url, self._state, self._wake = url, state, wake
        self._loop = asyncio.get_running_loop()
        self._store: Store | None = None
        self.signer = Signer()
        self._key: bytes | None = None
        self.links = Links(MAX_LINKS)
        self.errand: Errand | None = None
        self._has_asked = False
        self.desk = Desk(self._opened)

    # --- receipts

    def attach(self, lane: Lane, signature: Signature, prediction: Prediction) -> None:
        """From now on its answers carry one, as soon as the key is known."""
        lane.stamp = Receipts(
            self.signer,
            signature,
            prediction.class_output,
            prediction.score_output,
            is_value=prediction.is_value,
            threshold=prediction.threshold,
        )
        if lane.twin:
            lane.twin.stamp = lane.stamp  # what a shadow predicted is told the same way
        if self.errand and not self._has_asked:
            self._has_asked = True
            self.errand(self._fetch_key)

    def _fetch_key(self, store: Store) -> None:
        self._key = store.feedback_key()
        self._loop.call_soon_threadsafe(self.signer.use, self._key)

    def read_links(self) -> list[StoredReport]:
        """A source of reports for the agent: what shadows predicted for answers that a label may come for."""
        found: dict[tuple[str, str], dict[str, str | None]] = {}
        for primary, shadow, version in self.links.take():
            if self._key is None:
                continue
            said = receipt.read(self._key, primary)
            told = receipt.read(self._key, shadow)[10] if shadow else [None]
            label = told[0][0] if told and told[0] else None
            found.setdefault((said[3], version), {})[said[0].hex()] = None if label is None else str(label)
        now = time.time()
        return [
            StoredReport(LINK_KIND, model, version, uuid.uuid4().hex, orjson.dumps(links), now)
            for (model, version), links in found.items()
        ]

    # --- reports

    @property
    def streaming(self) -> dict[str, Callable[[Stream], StreamHandler]]:
        """Handlers by gRPC path."""
        return {
            SERVICE + "Report": partial(SlowUnary, self.report, self._wake),
            SERVICE + "ReportStream": partial(ReportStream, self),
        }

    async def report(self, message: bytes) -> bytes:
        request = parse(pb.feedback.ReportRequest, message)
        answer: Future[list[Result]] = Future()
        self.desk.take([_report(each) for each in request.reports], partial(settle, answer))
        response = pb.feedback.ReportResponse()
        for result in await asyncio.wrap_future(answer):
            response.results.add(status=result.status, error=result.error)
        serialized: bytes = response.SerializeToString()
        return serialized

    def post(self, request: Request) -> None:
        """POST /v1/feedback."""
        waiting = [request]
        request.cancel = waiting.clear  # the caller is gone; what was reported is kept all the same
        self.desk.take(form.parse(bytes(request.body)), partial(self._told, waiting))

    def _told(self, waiting: list[Request], told: list[Result] | GatewayError) -> None:
        def answer() -> None:
            for request in waiting:
                if isinstance(told, GatewayError):
                    request.refuse(told)
                else:
                    status, body = form.answer(told)
                    request.respond_json(body, status)

        self.on_loop(answer)

    def on_loop(self, work: Callable[[], None]) -> None:
        """From the desk's thread; nothing when the loop is gone."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(work)

    def wake(self) -> None:
        self._wake()

    def close(self) -> None:
        self.desk.close()
        if self._store:
            self._store.close()

    def _opened(self) -> Store:
        """In the desk's thread."""
        if self._store is None:
            if self._url is None:
                raise Unavailable("this worker has no store to keep feedback in: start it with --state or --store")
            if self._url.startswith("sqlite:") and not Path(self._url.removeprefix("sqlite:///")).exists():
                raise Unavailable("the store is not there yet: the control process makes it")
            from gateway.store import Store

            self._store = Store.open(self._url, self._state)
        return self._store


class ReportStream:
    """One ReportStream call. Batches are handed in as they come; the summary follows the last result."""

    def __init__(self, feedback: Feedback, stream: Stream) -> None:
        self._feedback = feedback
        self._stream: Stream | None = stream
        self._summary = pb.feedback.ReportSummary()
        self._n_reports = self._n_open = 0
        self._is_half_closed = False

    def on_message(self, message: bytes) -> None:
        if self._stream is None:
            return
        try:
            request = parse(pb.feedback.ReportRequest, message)
            reports = [_report(each) for each in request.reports]
            self._feedback.desk.take(reports, partial(self._told, self._n_reports))
        except GatewayError as error:
            self._finish(error)
            return
        self._n_reports += len(reports)
        self._n_open += 1

    def on_half_close(self) -> None:
        self._is_half_closed = True
        self._finish_if_done()

    def on_cancel(self) -> None:
        self._stream = None

    def _told(self, first: int, told: list[Result] | GatewayError) -> None:
        self._feedback.on_loop(lambda: self._note(first, told))

    def _note(self, first: int, told: list[Result] | GatewayError) -> None:
        self._n_open -= 1
        if isinstance(told, GatewayError):
            self._finish(told)
            return
        for index, result in enumerate(told, first):
            if result.status is Status.ACCEPTED:
                self._summary.accepted += 1
            elif result.status is Status.DUPLICATE:
                self._summary.duplicate += 1
            else:
                self._summary.refused += 1
                if len(self._summary.first) < MAX_TOLD:
                    self._summary.first.add(index=index, result={"status": result.status, "error": result.error})
        self._finish_if_done()

    def _finish_if_done(self) -> None:
        if self._is_half_closed and not self._n_open and self._stream:
            self._stream.send(self._summary.SerializeToString())
            self._finish(None)

    def _finish(self, error: GatewayError | None) -> None:
        stream, self._stream = self._stream, None
        if stream:
            stream.finish(error.code if error else Code.OK, str(error) if error else "")
            self._feedback.wake()


def _report(outcome: Any) -> Report:
    kind = outcome.label.WhichOneof("value")
    label = getattr(outcome.label, kind) if kind else None
    return Report(outcome.request, outcome.row, label, dict(outcome.values), tuple(outcome.groups))
