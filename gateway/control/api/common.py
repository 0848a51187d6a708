"""What the paths share: their refusals, as the interface's own description shows them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends

from gateway.control.answers import Refusal
from gateway.control.plane import Plane, actor_of, plane_of

Shared = Annotated[Plane, Depends(plane_of)]
Actor = Annotated[str, Depends(actor_of)]


def models_here(plane: Plane) -> str:
    """For who asked for another."""
    return ", ".join(dict.fromkeys(each.model for each in plane.store.versions())) or "none"


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    texts = {
        404: "There is no such thing.",
        409: "The state of things forbids it; the body says which.",
        422: "Something in the request is wrong: `faults` names each field.",
        503: "The store cannot be used now; requests are served by the last routes.",
    }
    return {status: {"model": Refusal, "description": texts[status]} for status in (*statuses, 503)}
