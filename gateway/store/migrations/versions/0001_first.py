"""The first schema: versions, routes, workers, reports, leases, audit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_DOCUMENT = sa.JSON(none_as_null=True)


def upgrade() -> None:
    counters = op.create_table(
        "counters",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("audit_count", sa.BigInteger, nullable=False),
        sa.Column("audit_hash", sa.Text, nullable=False),
        sa.CheckConstraint("id = 1", name="one_row"),
    )
    op.bulk_insert(counters, [{"id": 1, "revision": 0, "audit_count": 0, "audit_hash": ""}])
    op.create_table(
        "versions",
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("version", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("signature", _DOCUMENT),
        sa.Column("lineage", _DOCUMENT, nullable=False),
        sa.Column("card", _DOCUMENT, nullable=False),
        sa.Column("is_retired", sa.Boolean, nullable=False),
        sa.Column("registered_at", sa.Double, nullable=False),
        sa.Column("registered_by", sa.Text, nullable=False),
    )
    op.create_table(
        "wanted",
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("version", sa.Text, primary_key=True),
        sa.ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"], name="wanted_version"),
    )
    op.create_table(
        "routes",
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("generation", sa.BigInteger, primary_key=True),
        sa.Column("document", _DOCUMENT, nullable=False),
        sa.Column("automatic", sa.Boolean, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.create_table(
        "workers",
        sa.Column("incarnation", sa.Text, primary_key=True),
        sa.Column("index", sa.Integer, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("generations", _DOCUMENT, nullable=False),
        sa.Column("versions", _DOCUMENT, nullable=False),
        sa.Column("faults", _DOCUMENT, nullable=False),
        sa.Column("is_ready", sa.Boolean, nullable=False),
    )
    op.create_table(
        "reports",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("version", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("incarnation", sa.Text, primary_key=True),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.create_index("reports_by_time", "reports", ["kind", "at"])
    op.create_table(
        "leases",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("term", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
    )
    op.create_table(
        "audit",
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


def downgrade() -> None:
    """None: the audit log would go with it. A backup from before is the way back."""
    raise NotImplementedError("there is nothing before the first schema")
