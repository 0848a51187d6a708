"""The trial of a candidate before traffic, as it travels through the store: what one worker is asked to try, and what
it found. An order names the worker; when that one dies at it, another try goes to another worker.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

ORDER_KIND, RESULT_KIND = "acceptance_order", "acceptance"


@dataclass(frozen=True, slots=True)
class Terms:
    """What the candidate must do, of the plan."""

    golden_required: bool = False
    tolerance: float = 1e-3
    """Largest relative difference of a golden example's outputs."""
    latency: float = 3.0
    """Times as slow as stable."""
    memory_bytes: int | None = None
    is_breaking: bool = False
    """Its signature may differ from stable's, so nothing is compared with stable."""


@dataclass(frozen=True, slots=True)
class Order:
    attempt: str
    number: int
    """Of the try, from 1."""
    incarnation: str
    """Of the worker that is asked."""
    model: str
    stable: str
    candidate: str
    terms: Terms

    @property
    def key(self) -> str:
        return f"{self.attempt}/{self.number}"

    def body(self) -> bytes:
        return json.dumps(
            {"incarnation": self.incarnation, "stable": self.stable, "terms": asdict(self.terms)}
        ).encode()

    @classmethod
    def from_report(cls, key: str, model: str, version: str, body: bytes) -> Order:
        attempt, _, number = key.rpartition("/")
        found = json.loads(body)
        terms = Terms(**found["terms"])
        return cls(attempt, int(number), found["incarnation"], model, found["stable"], version, terms)


@dataclass(frozen=True, slots=True)
class Result:
    """`fault`: what failed, for a person: the example, expected, got; empty when all passed. `seen`: a sentence for
    each thing that was tried and was good.
    """

    fault: str
    seen: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.fault

    def body(self) -> bytes:
        return json.dumps({"fault": self.fault, "seen": self.seen}).encode()

    @classmethod
    def from_body(cls, body: bytes) -> Result:
        found: dict[str, Any] = json.loads(body)
        return cls(str(found["fault"]), tuple(map(str, found["seen"])))
