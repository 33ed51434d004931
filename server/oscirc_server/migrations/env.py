"""Alembic's entry: runs the steps on the connection that `Database.migrate` hands over."""

from __future__ import annotations

from alembic import context

from oscirc_server.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite changes a table by copying it
)
with context.begin_transaction():
    context.run_migrations()
