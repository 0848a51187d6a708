"""What callers reported of answers they got, and its sums."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "feedback",
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
        sa.Column("arrived_at", sa.Double, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("predicted", sa.Text),
        sa.Column("score", sa.Double),
        sa.Column("label", sa.Text),
        sa.Column("value", sa.Double),
        sa.Column("groups", sa.Text, nullable=False),
        sa.UniqueConstraint("id", "row", "kind", "name", name="feedback_once"),
        sqlite_autoincrement=True,
    )
    op.create_index("feedback_by_stage", "feedback", ["model", "stage", "seq"])
    op.create_index("feedback_by_time", "feedback", ["at"])
    op.create_table(
        "feedback_tallies",
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("version", sa.Text, primary_key=True),
        sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("n", sa.BigInteger, nullable=False),
        sa.Column("hits", sa.BigInteger, nullable=False),
        sa.Column("total", sa.Double, nullable=False),
        sa.Column("squares", sa.Double, nullable=False),
    )
    op.create_table(
        "feedback_keys",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("key", sa.Text, nullable=False),
    )


def downgrade() -> None:
    """None: what callers reported would be forgotten. A backup from before is the way back."""
    raise NotImplementedError("feedback is not thrown away; restore the backup from before")
