"""Which files of the tree lag behind the database."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table; the next start writes whatever the tree lacks."""
    op.create_table(
        "pending_files",
        sa.Column("path", sa.String(255), primary_key=True),
        sa.Column("mark", sa.BigInteger(), nullable=False),
        sa.Column("since_s", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    """Forget it: a start of the older program writes the whole tree."""
    op.drop_table("pending_files")
