"""Rollouts: attempts with where they stand, their decisions with what they were made of, and what comes of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def _document(name: str, *, may_lack: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.JSON(none_as_null=True), nullable=may_lack)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def upgrade() -> None:
    op.create_table(
        "rollouts",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
        *map(_text, ("model", "stable", "stable_digest", "candidate", "candidate_digest")),
        _document("plan"),
        _document("cursor"),
        _text("stage"),
        sa.Column("is_live", sa.Boolean, nullable=False),
        _document("orders"),
        _document("stages"),
        _document("baseline", may_lack=True),
        *map(_document, ("base", "loads", "status")),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        _text("waits_for"),
        sa.Column("term", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        *map(_text, ("created_by", "reason")),
        sa.Column("finished_at", sa.Double),
        _text("outcome"),
    )
    op.create_index("rollouts_by_model", "rollouts", ["model", "number"])
    op.create_table(
        "rollout_decisions",
        sa.Column("rollout", sa.Text, primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", sa.Double, nullable=False),
        *map(_text, ("event", "stage")),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("generation", sa.BigInteger),
        *map(_text, ("headline", "digest")),
        sa.Column("term", sa.BigInteger, nullable=False),
        _document("snapshot"),
        _document("decision"),
    )
    op.create_table(
        "rollout_samples",
        sa.Column("rollout", sa.Text, primary_key=True),
        sa.Column("at", sa.Double, primary_key=True),
        _document("body"),
    )
    op.create_table(
        "blocked",
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, primary_key=True),
        *map(_text, ("version", "rollout", "reason")),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.create_table(
        "last_good",
        sa.Column("model", sa.Text, primary_key=True),
        *map(_text, ("version", "digest", "rollout", "previous", "previous_digest")),
        sa.Column("retain_until", sa.Double, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )


def downgrade() -> None:
    """None: what was taken back, and why, would be forgotten. A backup from before is the way back."""
    raise NotImplementedError("rollouts are not thrown away; restore the backup from before")
