"""Words and size of screenshots beside their files, and files found by their digest."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """What is listed by now is of other kinds and has none."""
    op.add_column("accelerators", sa.Column("alt", sa.String(300)))
    op.add_column("accelerators", sa.Column("width", sa.Integer()))
    op.add_column("accelerators", sa.Column("height", sa.Integer()))
    op.create_index("accelerators_by_digest", "accelerators", ["sha256"])


def downgrade() -> None:
    """The files say the same."""
    op.drop_index("accelerators_by_digest", "accelerators")
    for name in ("height", "width", "alt"):
        op.drop_column("accelerators", name)
