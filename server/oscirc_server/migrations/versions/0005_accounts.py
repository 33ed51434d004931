"""Accounts, members and sessions; a token may belong to an account, or come from a claim rule."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Tokens that there are belong to nobody and stay as they are."""
    op.create_table(
        "accounts",
        sa.Column("name", sa.String(127), primary_key=True),
        sa.Column("publisher", sa.String(63)),
        sa.Column("password_hash", sa.Text()),
        sa.Column("is_admin", sa.Boolean(), nullable=False),
        sa.Column("created_s", sa.BigInteger(), nullable=False),
        sa.Column("disabled_s", sa.BigInteger()),
    )
    op.create_index("ix_accounts_publisher", "accounts", ["publisher"])
    op.create_table(
        "members",
        sa.Column("account", sa.String(127), sa.ForeignKey("accounts.name"), primary_key=True),
        sa.Column("publisher", sa.String(63), primary_key=True),
        sa.Column("role", sa.String(16), nullable=False),
    )
    op.create_index("members_of", "members", ["publisher"])
    op.create_table(
        "web_sessions",
        sa.Column("secret_hash", sa.LargeBinary(32), primary_key=True),
        sa.Column("account", sa.String(127), sa.ForeignKey("accounts.name"), nullable=False),
        sa.Column("created_s", sa.BigInteger(), nullable=False),
        sa.Column("seen_s", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_web_sessions_account", "web_sessions", ["account"])
    op.add_column("tokens", sa.Column("account", sa.String(127)))
    op.add_column("tokens", sa.Column("rule", sa.String(16)))
    op.create_index("ix_tokens_account", "tokens", ["account"])
    op.create_index("ix_tokens_rule", "tokens", ["rule"])
