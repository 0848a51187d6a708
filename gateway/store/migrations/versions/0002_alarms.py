"""Alarms of drift, and what is to be delivered of them to webhooks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "alarms",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("opened_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.Column("document", sa.JSON(none_as_null=True), nullable=False),
    )
    op.create_index("alarms_by_version", "alarms", ["model", "version", "opened_at"])
    op.create_table(
        "deliveries",
        sa.Column("event", sa.Text, primary_key=True),
        sa.Column("endpoint", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", sa.Double, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_index("deliveries_by_time", "deliveries", ["state", "next_at"])


def downgrade() -> None:
    """None: alarms would be forgotten. A backup from before is the way back."""
    raise NotImplementedError("alarms are not thrown away; restore the backup from before")
