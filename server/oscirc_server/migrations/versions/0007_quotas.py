"""Quotas, and what publishers hold. What there is already is counted when a server starts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_OF_DRAFTS = sa.text("draft_id IS NOT NULL")


def upgrade() -> None:
    """Empty tables: a publisher without a row is counted by the upkeep."""
    op.create_table(
        "quotas",
        sa.Column("publisher", sa.String(63), primary_key=True),
        sa.Column("unique_limit", sa.BigInteger()),
        sa.Column("logical_limit", sa.BigInteger()),
    )
    op.create_table(
        "publisher_usage",
        sa.Column("publisher", sa.String(63), primary_key=True),
        sa.Column("unique_bytes", sa.BigInteger(), nullable=False),
        sa.Column("recount_due", sa.Boolean(), nullable=False),
    )
    op.create_table(
        "holdings",
        sa.Column("publisher", sa.String(63), primary_key=True),
        sa.Column("digest", sa.LargeBinary(32), primary_key=True),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("draft_id", sa.String(32)),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "holdings_of_drafts", "holdings", ["draft_id"], sqlite_where=_OF_DRAFTS, postgresql_where=_OF_DRAFTS
    )
    op.create_table(
        "image_usage",
        sa.Column("publisher", sa.String(63), primary_key=True),
        sa.Column("image", sa.String(63), primary_key=True),
        sa.Column("logical_bytes", sa.BigInteger(), nullable=False),
    )
