# SPDX-License-Identifier: Apache-2.0
"""Alembic runs this file. The caller gives the connection, already inside the one transaction everything happens in."""

from __future__ import annotations

from alembic import context

from skerry.hub.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,  # the transaction is the caller's, on SQLite too
    render_as_batch=True,
)
context.run_migrations()
