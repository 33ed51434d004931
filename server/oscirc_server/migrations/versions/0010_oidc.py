"""Tokens for pipelines: issuers, rules of publishers, JWTs that were exchanged."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nobody is trusted until an administrator says so."""
    op.create_table(
        "oidc_issuers",
        sa.Column("url", sa.String(255), primary_key=True),
        sa.Column("jwks_url", sa.String(255), nullable=False),
        sa.Column("created_s", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "oidc_rules",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("publisher", sa.String(63), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("issuer", sa.String(255), nullable=False),
        sa.Column("claims", sa.Text(), nullable=False),
        sa.Column("lifetime_s", sa.Integer(), nullable=False),
        sa.Column("created_s", sa.BigInteger(), nullable=False),
    )
    op.create_index("oidc_rules_of", "oidc_rules", ["publisher", "issuer"])
    op.create_table(
        "oidc_uses",
        sa.Column("digest", sa.LargeBinary(32), primary_key=True),
        sa.Column("expires_s", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_oidc_uses_expires_s", "oidc_uses", ["expires_s"])
