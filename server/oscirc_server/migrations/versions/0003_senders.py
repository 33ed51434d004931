"""Shared boots know from which network they came, so that a network counts once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Runs that do not say who sent them count for nothing: they go."""
    op.drop_table("profile_runs")
    op.create_table(
        "profile_runs",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("manifest", sa.LargeBinary(32), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("sender", sa.LargeBinary(16), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("created_s", sa.BigInteger(), nullable=False),
    )
    op.create_index("profile_runs_of", "profile_runs", ["manifest", "name", "sender"], unique=True)


def downgrade() -> None:
    """Forget who sent what, and with it the runs."""
    op.drop_table("profile_runs")
    op.create_table(
        "profile_runs",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("manifest", sa.LargeBinary(32), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("created_s", sa.BigInteger(), nullable=False),
    )
    op.create_index("profile_runs_of", "profile_runs", ["manifest", "name"])
