"""Which images' rows changed, for processes that keep the list in memory; search reads no index by facets any more."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_INDEXES = {
    "versions_by_name": ["searched", "name", "released"],
    "versions_by_family": ["searched", "family", "name"],
    "versions_by_system_version": ["searched", "system_version", "name"],
    "versions_by_architecture": ["searched", "architecture", "name"],
    "versions_by_firmware": ["searched", "firmware", "name"],
    "versions_by_publisher": ["searched", "publisher", "name"],
}


def upgrade() -> None:
    """Nothing has changed yet for whoever starts afterwards and reads all."""
    op.create_table(
        "catalog_changes",
        sa.Column("publisher", sa.String(63), primary_key=True),
        sa.Column("image", sa.String(63), primary_key=True),
        sa.Column("serial", sa.BigInteger(), nullable=False),
    )
    op.create_index("catalog_changes_in_order", "catalog_changes", ["serial"])
    for name in _INDEXES:
        op.drop_index(name, "versions")


def downgrade() -> None:
    """As it was."""
    for name, columns in _INDEXES.items():
        op.create_index(name, "versions", columns)
    op.drop_table("catalog_changes")
