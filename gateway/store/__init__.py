"""What outlives the processes: versions, routes by generation, who is alive, what was counted, and the audit log.

One SQLite file in the state folder, or a PostgreSQL database: the same code and the same tests. The control plane and
the workers share nothing else.
"""

from __future__ import annotations

from gateway.store.chain import AuditVerdict
from gateway.store.records import (
    AlarmRecord,
    AuditEntry,
    Conflict,
    Delivery,
    DigestMismatch,
    Report,
    RouteRecord,
    StoreUnavailable,
    VersionRecord,
    WorkerRecord,
)
from gateway.store.store import Store, url_of_folder

__all__ = [
    "AlarmRecord",
    "AuditEntry",
    "AuditVerdict",
    "Conflict",
    "Delivery",
    "DigestMismatch",
    "Report",
    "RouteRecord",
    "Store",
    "StoreUnavailable",
    "VersionRecord",
    "WorkerRecord",
    "url_of_folder",
]
