"""Accelerators, and the boots that people share."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the two tables."""
    op.create_table(
        "accelerators",
        sa.Column("manifest", sa.LargeBinary(32), primary_key=True),
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(63), primary_key=True),
        sa.Column("sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("index_length", sa.BigInteger(), nullable=False),
        sa.Column("created_s", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "profile_runs",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("manifest", sa.LargeBinary(32), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("created_s", sa.BigInteger(), nullable=False),
    )
    op.create_index("profile_runs_of", "profile_runs", ["manifest", "name"])


def downgrade() -> None:
    """Drop them: everything in them can be made again."""
    op.drop_table("profile_runs")
    op.drop_table("accelerators")
