"""The tables. A change here is a new script in migrations/versions, and HEAD its number; a test holds them together."""

from __future__ import annotations

import sqlalchemy as sa

HEAD = "0004"
"""The newest migration: what this code reads and writes."""

metadata = sa.MetaData()

# Documents are JSON as text on both databases: they are read whole, by people too, never searched inside.
_Document = sa.JSON(none_as_null=True)
_Time: sa.Double[float] = sa.Double()

counters = sa.Table(
    "counters",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("audit_count", sa.BigInteger, nullable=False),
    sa.Column("audit_hash", sa.Text, nullable=False),
    sa.CheckConstraint("id = 1", name="one_row"),
)
"""One row. Whoever changes something locks it first, so that changes come one after the other."""

versions = sa.Table(
    "versions",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("signature", _Document),
    sa.Column("lineage", _Document, nullable=False),
    sa.Column("card", _Document, nullable=False),
    sa.Column("is_retired", sa.Boolean, nullable=False),
    sa.Column("registered_at", _Time, nullable=False),
    sa.Column("registered_by", sa.Text, nullable=False),
)

wanted = sa.Table(
    "wanted",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"], name="wanted_version"),
)
"""Versions that every worker loads, beside what lies in its repository."""

routes = sa.Table(
    "routes",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("generation", sa.BigInteger, primary_key=True),
    sa.Column("document", _Document, nullable=False),
    sa.Column("automatic", sa.Boolean, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", _Time, nullable=False),
)
"""Every generation stays; a model's highest is in force."""

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("incarnation", sa.Text, primary_key=True),
    sa.Column("index", sa.Integer, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.BigInteger, nullable=False),
    sa.Column("started_at", _Time, nullable=False),
    sa.Column("seen_at", _Time, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("generations", _Document, nullable=False),
    sa.Column("versions", _Document, nullable=False),
    sa.Column("faults", _Document, nullable=False),
    sa.Column("is_ready", sa.Boolean, nullable=False),
)

reports = sa.Table(
    "reports",
    metadata,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("incarnation", sa.Text, primary_key=True),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("at", _Time, nullable=False),
    sa.Index("reports_by_time", "kind", "at"),
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("term", sa.BigInteger, nullable=False),
    sa.Column("expires_at", _Time, nullable=False),
)
"""The row stays after a release: its term must never be given twice."""

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at_us", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("before", sa.Text, nullable=False),
    sa.Column("after", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
)
"""`before` and `after` are canonical JSON: the very text that was hashed."""

alarms = sa.Table(
    "alarms",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("opened_at", _Time, nullable=False),
    sa.Column("updated_at", _Time, nullable=False),
    sa.Column("document", _Document, nullable=False),
    sa.Index("alarms_by_version", "model", "version", "opened_at"),
)

deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("event", sa.Text, primary_key=True),
    sa.Column("endpoint", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_at", _Time, nullable=False),
    sa.Column("created_at", _Time, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Index("deliveries_by_time", "state", "next_at"),
)
"""Written with the alarm that they tell of: an event is never lost between the two. `state`: see records.Delivery."""


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _document(name: str) -> sa.Column[object]:
    return sa.Column(name, _Document, nullable=False)


rollouts = sa.Table(
    "rollouts",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
    *map(_text, ("model", "stable", "stable_digest", "candidate", "candidate_digest")),
    _document("plan"),
    _document("cursor"),
    _text("stage"),
    sa.Column("is_live", sa.Boolean, nullable=False),
    _document("orders"),
    _document("stages"),
    sa.Column("baseline", _Document),
    *map(_document, ("base", "loads", "status")),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    _text("waits_for"),
    sa.Column("term", sa.BigInteger, nullable=False),
    sa.Column("created_at", _Time, nullable=False),
    *map(_text, ("created_by", "reason")),
    sa.Column("finished_at", _Time),
    _text("outcome"),
    sa.Index("rollouts_by_model", "model", "number"),
)

rollout_decisions = sa.Table(
    "rollout_decisions",
    metadata,
    sa.Column("rollout", sa.Text, primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", _Time, nullable=False),
    *map(_text, ("event", "stage")),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("generation", sa.BigInteger),
    *map(_text, ("headline", "digest")),
    sa.Column("term", sa.BigInteger, nullable=False),
    _document("snapshot"),
    _document("decision"),
)
"""Append only: what a decision was made of stays, for who asks why."""

rollout_samples = sa.Table(
    "rollout_samples",
    metadata,
    sa.Column("rollout", sa.Text, primary_key=True),
    sa.Column("at", _Time, primary_key=True),
    _document("body"),
)
"""Points of its timeline, for plots."""

blocked = sa.Table(
    "blocked",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, primary_key=True),
    *map(_text, ("version", "rollout", "reason")),
    sa.Column("at", _Time, nullable=False),
)

last_good = sa.Table(
    "last_good",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    *map(_text, ("version", "digest", "rollout", "previous", "previous_digest")),
    sa.Column("retain_until", _Time, nullable=False),
    sa.Column("at", _Time, nullable=False),
)
"""Written in the transaction that promotes: never inferred from the routes."""

feedback = sa.Table(
    "feedback",
    metadata,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("id", sa.LargeBinary, nullable=False),
    sa.Column("row", sa.Integer, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("answered", sa.Text, nullable=False),
    sa.Column("arm", sa.Text, nullable=False),
    sa.Column("stage", sa.BigInteger, nullable=False),
    sa.Column("weight", sa.Integer, nullable=False),
    sa.Column("unit", sa.LargeBinary),
    sa.Column("arrived_at", _Time, nullable=False),
    sa.Column("at", _Time, nullable=False),
    sa.Column("predicted", sa.Text),
    sa.Column("score", _Time),
    sa.Column("label", sa.Text),
    sa.Column("value", _Time),
    sa.Column("groups", sa.Text, nullable=False),
    sa.UniqueConstraint("id", "row", "kind", "name", name="feedback_once"),
    sa.Index("feedback_by_stage", "model", "stage", "seq"),
    sa.Index("feedback_by_time", "at"),
    sqlite_autoincrement=True,
)
"""Facts, see feedback.report.Fact. `seq` grows in the order of commits, and none comes twice: who has read up to one
has missed nothing.
"""

feedback_tallies = sa.Table(
    "feedback_tallies",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("n", sa.BigInteger, nullable=False),
    sa.Column("hits", sa.BigInteger, nullable=False),
    sa.Column("total", _Time, nullable=False),
    sa.Column("squares", _Time, nullable=False),
)
"""Sums of facts by the hour in which the answer was asked for, see feedback.tally.Tally."""

feedback_keys = sa.Table(
    "feedback_keys",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("key", sa.Text, nullable=False),
)
"""One row, where there is no state folder that all share."""
