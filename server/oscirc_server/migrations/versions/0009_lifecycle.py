"""Blocks say since when they are condemned or being deleted; images have retention policies."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One column, one table."""
    op.add_column("blocks", sa.Column("condemned_s", sa.BigInteger(), nullable=True))
    op.create_table(
        "retention",
        sa.Column("publisher", sa.String(63), primary_key=True),
        sa.Column("image", sa.String(63), primary_key=True),
        sa.Column("keep_last", sa.Integer(), nullable=True),
        sa.Column("keep_days", sa.Integer(), nullable=True),
        sa.Column("updated_s", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    """An older server knows no block that is on its way out: what is condemned is live for it, the rest is finished."""
    op.execute("DELETE FROM blocks WHERE state = 'deleting'")
    op.execute("UPDATE blocks SET state = 'staged' WHERE state = 'condemned'")
    op.drop_table("retention")
    op.drop_column("blocks", "condemned_s")
