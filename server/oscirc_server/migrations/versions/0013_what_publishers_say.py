"""What publishers say of images, as far as lists show it and search chooses by it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_COLUMNS = (
    ("images", "title", 100),
    ("images", "summary", 300),
    ("versions", "kind", 16),
    ("versions", "end_of_life", 10),
)


def upgrade() -> None:
    """Nothing is said of what is here already: it came from programs that could not say it."""
    for table, name, length in _COLUMNS:
        op.add_column(table, sa.Column(name, sa.String(length), nullable=False, server_default=""))


def downgrade() -> None:
    """The indexes of the images say the same."""
    for table, name, _ in reversed(_COLUMNS):
        op.drop_column(table, name)
