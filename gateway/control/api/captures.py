"""/v1/captures: the next rows that a version answers, copied for a profile. They are callers' data: written down as
asked for in the audit log, kept for minutes, and one capture at a time.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from gateway.control import fleet
from gateway.control.api.common import Actor, Shared, refusals
from gateway.control.plane import Plane
from gateway.control.problems import Problem
from gateway.errors import InvalidArgument
from gateway.monitoring.capture import MAX_ROWS, ORDER_KIND, ORDER_TTL_S, ROWS_KIND, Order, join, key_parts

if TYPE_CHECKING:
    from gateway.store import Report, Store

router = APIRouter(prefix="/v1", tags=["captures"])


class Wish(BaseModel):
    model_config = ConfigDict(extra="forbid")

    rows: int = Field(ge=1, le=MAX_ROWS)
    reason: str = Field("", max_length=4000)


class Capture(BaseModel):
    """`captured` may be more than `rows`: every worker copies as many, since none knows what the others get."""

    id: str
    model: str
    version: str
    rows: int
    captured: int


@router.post(
    "/models/{model}/versions/{version}/captures",
    status_code=201,
    summary="Copy the next rows that this version answers, in every worker",
    responses=refusals(404, 409, 422),
)
def begin(plane: Shared, actor: Actor, model: str, version: str, wish: Wish) -> Capture:
    store = plane.store
    served = sorted(number for name, number in fleet.reported(plane.live()) if name == model)
    if version not in served:
        raise Problem(
            404, f"model {model!r} has no version {version} in any worker; there is {', '.join(served) or 'none'}"
        )
    with plane.commit:
        for order in _orders(store):
            raise Problem(
                409,
                f"capture {order.id} of {order.model} version {order.version} is under way, one at a time: "
                f"DELETE /v1/captures/{order.id} ends it",
            )
        made = Order(uuid.uuid4().hex, model, version, wish.rows, time.time())
        from gateway.store import Report

        store.audit(actor, "capture.begin", f"{model}/{version}", wish.reason, None, {"id": made.id, "rows": made.rows})
        store.put_reports("control", [Report(ORDER_KIND, model, version, made.id, made.body(), made.at_s)])
    return Capture(id=made.id, model=model, version=version, rows=made.rows, captured=0)


@router.get("/captures/{capture}", summary="How far it is", responses=refusals(404))
def show(plane: Shared, capture: str) -> Capture:
    order = _order(plane, capture)
    captured = sum(key_parts(piece.key)[1] for piece in _pieces(plane.store, order))
    return Capture(id=order.id, model=order.model, version=order.version, rows=order.rows, captured=captured)


@router.get(
    "/captures/{capture}/rows",
    summary="What has come so far, as npz",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}, **refusals(404, 409)},
)
def rows(plane: Shared, capture: str) -> Response:
    order = _order(plane, capture)
    pieces = [piece.body for piece in _pieces(plane.store, order)]
    if not pieces:
        raise Problem(409, f"capture {order.id} has no rows yet: {order.model} version {order.version} answers nobody")
    try:
        return Response(join(pieces, order.rows), media_type="application/octet-stream")
    except InvalidArgument as error:
        raise Problem(409, str(error)) from None


@router.delete("/captures/{capture}", summary="End it and forget its rows", responses=refusals(404))
def end(plane: Shared, actor: Actor, capture: str) -> Capture:
    last, store = show(plane, capture), plane.store
    # There is one at a time: all of either kind are its own, or left over from an earlier one.
    with plane.commit:
        now_s = time.time() + 1
        store.prune_reports(ORDER_KIND, now_s)
        store.prune_reports(ROWS_KIND, now_s)
        store.audit(actor, "capture.end", f"{last.model}/{last.version}", "", {"id": last.id}, None)
    return last


def _order(plane: Plane, capture: str) -> Order:
    for order in _orders(plane.store):
        if order.id == capture:
            return order
    raise Problem(
        404, f"capture {capture!r}: there is none, or it is over: after {ORDER_TTL_S / 60:g} min it is forgotten"
    )


def _orders(store: Store) -> list[Order]:
    found = store.reports(ORDER_KIND, since=time.time() - ORDER_TTL_S)
    return [Order.from_report(each.key, each.model, each.version, each.body, each.at) for each in found]


def _pieces(store: Store, order: Order) -> list[Report]:
    found = store.reports(ROWS_KIND, order.model, order.version, since=order.at_s)
    return [piece for piece in found if key_parts(piece.key)[0] == order.id]
