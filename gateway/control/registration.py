"""Enters versions into the registry: what lies in the repository, with its digest, lineage and card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.errors import GatewayError, NotFound
from gateway.observability import logs
from gateway.registry.digest import digest_folder
from gateway.registry.repository import find
from gateway.registry.versionfile import load_version_file

if TYPE_CHECKING:
    from gateway.store import Store, VersionRecord

ACTOR = "gateway"
SIGNATURE_KIND = "signature"
"""Of the reports in which workers say what a version takes and gives."""


def folder_of(models: Path, model: str, version: str) -> Path:
    """NotFound: there is no such model or version in the repository."""
    folder = find(models, model)
    for each in folder.versions:
        if str(each.number) == version:
            return each.path
    there = ", ".join(str(each.number) for each in folder.versions) or "none"
    raise NotFound(f"model {model!r}: no folder of version {version} in {folder.path}; there: {there}")


def record_of(models: Path, model: str, version: str, signature: dict[str, Any] | None = None) -> VersionRecord:
    """As it lies in the repository now. Reads all of its files: seconds for a large one."""
    from gateway.store import VersionRecord

    path = folder_of(models, model, version)
    lineage, card = load_version_file(path).documents()
    return VersionRecord(
        model=model,
        version=version,
        digest=digest_folder(path),
        path=str(path),
        signature=signature,
        lineage=lineage,
        card=card,
    )


def signatures(store: Store, model: str | None = None) -> dict[tuple[str, str], dict[str, Any]]:
    """By (model, version), as the workers that loaded it say."""
    reports = store.reports(SIGNATURE_KIND, model=model)
    return {(report.model, report.version): json.loads(report.body) for report in sorted(reports, key=lambda r: r.at)}


class Registrar:
    """The duty: what workers serve and nobody has registered is registered; a version whose files are no longer what
    they were is complained of, once.
    """

    def __init__(self, models: Path) -> None:
        self._models = models
        self._given_up: set[tuple[str, str]] = set()
        self._checked: set[tuple[str, str]] = set()
        self.faults: dict[tuple[str, str], str] = {}
        """Why what is served is not what is registered."""

    def run(self, store: Store, served: set[tuple[str, str]]) -> None:
        known = {(record.model, record.version): record for record in store.versions()}
        told = signatures(store) if any(key not in known or not known[key].signature for key in served) else {}
        for model, version in sorted(served - self._given_up):
            record = known.get((model, version))
            is_complete = record is not None and (record.signature is not None or (model, version) not in told)
            if is_complete and (model, version) in self._checked:
                continue
            try:
                fresh = record_of(self._models, model, version, told.get((model, version)))
                self._checked.add((model, version))
                store.register_version(fresh, ACTOR, "found in the repository")
                self.faults.pop((model, version), None)
            except NotFound:
                self._given_up.add((model, version))  # it came from a caller, or its folder is gone
            except GatewayError as error:
                if self.faults.get((model, version)) != str(error):
                    logs.get().error("version is not as registered", model=model, version=version, error=str(error))
                self.faults[model, version] = str(error)
