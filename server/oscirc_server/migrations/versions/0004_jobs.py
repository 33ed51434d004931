"""Jobs: work that is done in the background."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_QUEUED = sa.text("state = 'queued'")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "jobs",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("publisher", sa.String(63), nullable=False),
        sa.Column("image", sa.String(63), nullable=False),
        sa.Column("version", sa.String(63), nullable=False),
        sa.Column("argument", sa.String(63), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(64), nullable=True),
        sa.Column("lease_s", sa.BigInteger(), nullable=True),
        sa.Column("not_before_s", sa.BigInteger(), nullable=False),
        sa.Column("requested_by", sa.String(80), nullable=False),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_s", sa.BigInteger(), nullable=False),
        sa.Column("started_s", sa.BigInteger(), nullable=True),
        sa.Column("ended_s", sa.BigInteger(), nullable=True),
    )
    op.create_index(
        "jobs_queued_once",
        "jobs",
        ["kind", "publisher", "image", "version", "argument"],
        unique=True,
        sqlite_where=_QUEUED,
        postgresql_where=_QUEUED,
    )
    op.create_index("jobs_by_state", "jobs", ["state", "priority", "id"])
    op.create_index("jobs_of_version", "jobs", ["publisher", "image", "version"])


def downgrade() -> None:
    """Forget all jobs."""
    op.drop_table("jobs")
