"""Rows of versions and events for the catalog, kept answers, and drafts that say when they are being verified.

The rows of versions follow from the indexes that are here: the next start makes them (`image_rows.make_missing`).
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_INDEXES = {
    "versions_in_order": ["publisher", "image", "position"],
    "versions_of_manifest": ["manifest"],
    "versions_by_name": ["searched", "name", "released"],
    "versions_by_date": ["searched", "released", "name"],
    "versions_by_family": ["searched", "family", "name"],
    "versions_by_system_version": ["searched", "system_version", "name"],
    "versions_by_architecture": ["searched", "architecture", "name"],
    "versions_by_firmware": ["searched", "firmware", "name"],
    "versions_by_publisher": ["searched", "publisher", "name"],
}


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "versions",
        sa.Column("publisher", sa.String(63), primary_key=True),
        sa.Column("image", sa.String(63), primary_key=True),
        sa.Column("label", sa.String(63), primary_key=True),
        sa.Column("name", sa.String(127), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("manifest", sa.LargeBinary(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("state_date", sa.String(20), nullable=False),
        sa.Column("state_why", sa.Text(), nullable=False),
        sa.Column("security", sa.Boolean(), nullable=False),
        sa.Column("released", sa.String(20), nullable=False),
        sa.Column("changelog", sa.Text(), nullable=False),
        sa.Column("shown", sa.Boolean(), nullable=False),
        sa.Column("searched", sa.Boolean(), nullable=False),
        sa.Column("family", sa.String(64), nullable=False),
        sa.Column("system_version", sa.String(64), nullable=False),
        sa.Column("architecture", sa.String(32), nullable=False),
        sa.Column("firmware", sa.String(16), nullable=False),
        sa.Column("minimum_memory_mib", sa.Integer()),
        sa.Column("default_login", sa.String(200), nullable=False),
        sa.Column("block_size", sa.Integer()),
        sa.Column("disk_size", sa.BigInteger()),
        sa.Column("data_bytes", sa.BigInteger()),
        sa.Column("download_bytes", sa.BigInteger()),
        sa.Column("search_text", sa.Text(), nullable=False),
    )
    for name, columns in _INDEXES.items():
        op.create_index(name, "versions", columns)
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("at_s", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("publisher", sa.String(63), nullable=False),
        sa.Column("image", sa.String(63), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
    )
    op.create_index("events_of_image", "events", ["publisher", "image", "id"])
    op.create_table(
        "kept_answers",
        sa.Column("id", sa.LargeBinary(32), primary_key=True),
        sa.Column("token_id", sa.String(80), nullable=False),
        sa.Column("body_hash", sa.LargeBinary(32)),
        sa.Column("status", sa.Integer()),
        sa.Column("sealed", sa.LargeBinary()),
        sa.Column("expires_s", sa.BigInteger(), nullable=False),
    )
    op.create_index("kept_answers_expiry", "kept_answers", ["expires_s"])
    op.create_index("kept_answers_of_token", "kept_answers", ["token_id"])
    op.add_column("drafts", sa.Column("verifying_until_s", sa.BigInteger()))


def downgrade() -> None:
    """Forget what can be made again."""
    op.drop_column("drafts", "verifying_until_s")
    op.drop_table("kept_answers")
    op.drop_table("events")
    op.drop_table("versions")
