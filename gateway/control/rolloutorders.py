"""What operators order of a rollout, as it stands in the store, and whether an order makes sense now. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from gateway.errors import Code, GatewayError, InvalidArgument
from gateway.rollout.phase import Stage, is_over
from gateway.rollout.snapshot import Orders

if TYPE_CHECKING:
    from gateway.store.rolloutrecords import RolloutRecord

_ADAPTER = TypeAdapter(Orders)
LIVE = frozenset({Stage.SHADOW, Stage.STEP, Stage.BAKING})


class Untimely(GatewayError):
    """The rollout is in no state for that."""

    code = Code.FAILED_PRECONDITION


def orders_of(record: RolloutRecord) -> Orders:
    return _ADAPTER.validate_python(record.orders)


def pause(record: RolloutRecord) -> dict[str, Any]:
    _before_its_end(record, "paused")
    return {**record.orders, "is_paused": True}


def resume(record: RolloutRecord) -> dict[str, Any]:
    if not record.orders.get("is_paused"):
        raise Untimely(
            f"rollout {record.id}: is not paused; `gateway rollout status {record.id}` says what it waits for"
        )
    return {**record.orders, "is_paused": False}


def abort(record: RolloutRecord, reason: str) -> dict[str, Any]:
    stage = Stage(record.stage)
    if is_over(stage) or not record.is_live:
        raise Untimely(f"rollout {record.id}: is over ({record.stage}), there is nothing to abort")
    if stage in (Stage.ROLLING_BACK, Stage.NEEDS_OPERATOR):
        raise Untimely(f"rollout {record.id}: is being taken back already ({record.stage})")
    return {**record.orders, "abort": reason.strip() or "aborted, no reason was given"}


def gate(record: RolloutRecord, name: str) -> dict[str, Any]:
    possible = ["traffic", "bake", "promote", *(f"step-{n + 1}" for n in range(len(record.plan["steps"])))]
    if name not in possible:
        raise InvalidArgument(f"gate: got {name!r}, expected one of {', '.join(possible)}")
    _before_its_end(record, "let through a gate")
    return {**record.orders, "opened": sorted({*record.orders.get("opened", ()), name})}


def retry(record: RolloutRecord) -> dict[str, Any]:
    if record.stage != Stage.NEEDS_OPERATOR:
        raise Untimely(
            f"rollout {record.id}: is {record.stage}; retry is for a rollback that got stuck (needs_operator). To try"
            " the candidate once more, start another rollout"
        )
    return {**record.orders, "retry": True}


def promote(record: RolloutRecord, reason: str, *, to_end: bool) -> dict[str, Any]:
    """On from the epoch that it is in. Without a reason only what the guardrails have shown good."""
    stage = Stage(record.stage)
    if stage is Stage.NEEDS_OPERATOR:
        if not reason.strip():
            raise InvalidArgument(
                f"reason: is empty; expected why {record.model} keeps version {record.candidate}, which was to be taken"
                " back and could not"
            )
    elif stage is Stage.WARMING:
        if "gate" not in record.status.get("holds", ()):
            raise Untimely(
                f"rollout {record.id}: is being tried before traffic; that is not skipped. Wait, or abort it"
            )
        opened = {*record.orders.get("opened", ()), "traffic", "bake", "step-1"}  # those that may be on its way
        return {**record.orders, "opened": sorted(opened)}
    elif stage not in LIVE:
        raise Untimely(f"rollout {record.id}: is {record.stage}, there is nothing to promote")
    elif not reason.strip() and (undecided := _undecided(record)):
        raise InvalidArgument(
            f"reason: is empty, and not everything is shown good: {undecided}; say why you go on without it"
        )
    text = reason.strip() or "the guardrails have shown it good"
    return {**record.orders, "advance": {"epoch": record.cursor["epoch"], "reason": text, "to_end": to_end}}


def _undecided(record: RolloutRecord) -> str:
    """What a guardrail has still to show, in words; empty when nothing."""
    status = record.status
    if not status or status.get("epoch") != record.cursor["epoch"]:
        return "nobody has looked at this stage yet"
    promotion = status.get("promotion")
    if promotion and promotion["outcome"] == "ok" and not status.get("holds"):
        return ""
    lacking = [
        f"{row['name']} is {row['outcome']}"
        for row in status.get("guardrails", ())
        if row["name"] in status.get("required", ()) and not row["is_shown_good"]
    ]
    held = [f"held by {name}" for name in status.get("holds", ())]
    return ", ".join(lacking + held) or (promotion["sentence"] if promotion else "nothing was judged")


def _before_its_end(record: RolloutRecord, what: str) -> None:
    stage = Stage(record.stage)
    if stage not in LIVE and stage not in (Stage.LOADING, Stage.WARMING):
        raise Untimely(f"rollout {record.id}: is {record.stage} and cannot be {what}")
