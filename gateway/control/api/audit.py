"""/v1/audit: who changed what, and whether anybody has tampered with the record of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query

from gateway.control import answers
from gateway.control.api.common import Shared, refusals

MAX_ENTRIES = 1000

router = APIRouter(prefix="/v1/audit", tags=["audit"])


@router.get("", summary="Changes, newest first", responses=refusals(422))
def list_audit(
    plane: Shared,
    limit: Annotated[int, Query(ge=1, le=MAX_ENTRIES)] = 100,
    before: Annotated[int | None, Query(ge=1, description="Only entries older than this number.")] = None,
    model: str | None = None,
    action: str | None = None,
) -> answers.AuditLog:
    entries = plane.store.audit_log(limit, before, model, action)
    return answers.AuditLog(entries=[answers.AuditEntry(**asdict(entry)) for entry in entries])


@router.get("/verify", summary="Check the whole chain", responses=refusals(422))
def verify_audit(
    plane: Shared,
    head: Annotated[str | None, Query(description="COUNT:HASH, noted elsewhere: it must be in the chain.")] = None,
) -> answers.AuditVerdict:
    verdict = plane.store.verify_audit(head)
    return answers.AuditVerdict(ok=verdict.ok, n=verdict.n, fault=verdict.fault or "", head=str(verdict.head))
