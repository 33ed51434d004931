"""The first form of the database."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_NOT_LIVE = sa.text("state != 'live'")
_OPEN = sa.text("state = 'open'")


def _create_repository() -> None:
    op.create_table(
        "facts",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text(), nullable=False),
    )
    op.create_table(
        "signed_roles",
        sa.Column("role", sa.String(64), primary_key=True),
        sa.Column("version", sa.BigInteger(), primary_key=True),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("expires_s", sa.BigInteger(), nullable=False),
        sa.Column("signed_s", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "documents",
        sa.Column("path", sa.String(255), primary_key=True),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("created_s", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "manifests",
        sa.Column("digest", sa.LargeBinary(32), primary_key=True),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("stored_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_s", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "images",
        sa.Column("publisher", sa.String(63), primary_key=True),
        sa.Column("image", sa.String(63), primary_key=True),
        sa.Column("index_path", sa.String(255), nullable=False),
        sa.Column("listed", sa.Boolean(), nullable=False),
        sa.Column("version_count", sa.Integer(), nullable=False),
        sa.Column("search_text", sa.Text(), nullable=False),
        sa.Column("updated_s", sa.BigInteger(), nullable=False),
    )


def _create_blocks() -> None:
    op.create_table(
        "blocks",
        sa.Column("digest", sa.LargeBinary(32), primary_key=True),
        sa.Column("raw_size", sa.Integer(), nullable=False),
        sa.Column("stored_length", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_s", sa.BigInteger(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("blocks_not_live", "blocks", ["state"], sqlite_where=_NOT_LIVE, postgresql_where=_NOT_LIVE)


def _create_drafts() -> None:
    op.create_table(
        "drafts",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("publisher", sa.String(63), nullable=False),
        sa.Column("image", sa.String(63), nullable=False),
        sa.Column("version", sa.String(63), nullable=False),
        sa.Column("block_size", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("manifest", sa.LargeBinary()),
        sa.Column("role_digest", sa.LargeBinary(32)),
        sa.Column("role_version", sa.BigInteger()),
        sa.Column("snapshot_version", sa.BigInteger()),
        sa.Column("created_s", sa.BigInteger(), nullable=False),
        sa.Column("expires_s", sa.BigInteger(), nullable=False),
    )
    op.create_index(
        "drafts_open",
        "drafts",
        ["publisher", "image", "version"],
        unique=True,
        sqlite_where=_OPEN,
        postgresql_where=_OPEN,
    )
    op.create_index("drafts_expiry", "drafts", ["state", "expires_s"])
    op.create_table(
        "leases",
        sa.Column("draft_id", sa.String(32), sa.ForeignKey("drafts.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("digest", sa.LargeBinary(32), primary_key=True),
        sqlite_with_rowid=False,
    )
    op.create_index("leases_digest", "leases", ["digest"])


def _create_authority() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(32), nullable=False, unique=True),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("created_s", sa.BigInteger(), nullable=False),
        sa.Column("expires_s", sa.BigInteger()),
        sa.Column("last_used_s", sa.BigInteger()),
        sa.Column("revoked_s", sa.BigInteger()),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("at_s", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(80), nullable=False),
        sa.Column("action", sa.String(40), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
    )


def upgrade() -> None:
    """Create every table."""
    _create_repository()
    _create_blocks()
    _create_drafts()
    _create_authority()
