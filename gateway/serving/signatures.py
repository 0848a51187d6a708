"""What each version takes and gives, told to the store once, for people and for the registry."""

from __future__ import annotations

import json
import time
from typing import Any, NamedTuple

from gateway.backends.base import Signature
from gateway.serving.catalog import Catalog

KIND = "signature"
EVERY_S = 0.5


class Report(NamedTuple):
    """As the agent takes it."""

    kind: str
    model: str
    version: str
    key: str
    body: bytes
    at: float


class Signatures:
    """A source of reports for the agent."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._told: dict[tuple[str, str], Signature] = {}

    def read(self) -> list[Report]:
        """Of what was loaded since the last time."""
        reports = []
        for model in self._catalog.models():
            for entry in self._catalog.versions(model):
                signature = entry.signature if entry.is_ready else None
                if signature is None or self._told.get((model, entry.version)) == signature:
                    continue
                self._told[model, entry.version] = signature
                body = json.dumps(document(signature)).encode()
                reports.append(Report(KIND, model, entry.version, "", body, time.time()))
        return reports


def document(signature: Signature) -> dict[str, Any]:
    return {
        "inputs": [_spec(spec) for spec in signature.inputs],
        "outputs": [_spec(spec) for spec in signature.outputs],
        "batched": signature.batched,
    }


def _spec(spec: Any) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}
