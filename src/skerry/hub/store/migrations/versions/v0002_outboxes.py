# SPDX-License-Identifier: Apache-2.0
"""Sequences of reports count within one outbox; the hub counts the reports of a device itself."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE devices RENAME COLUMN through TO report_n")
    op.execute("ALTER TABLE reports RENAME COLUMN seq TO n")
    op.create_table(
        "outboxes",
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("outbox", sa.Text(), nullable=False),
        sa.Column("through", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("lost", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"], name=op.f("fk_outboxes_device_id_devices")),
        sa.PrimaryKeyConstraint("device_id", "outbox", name=op.f("pk_outboxes")),
    )
    op.execute(
        "INSERT INTO outboxes (device_id, outbox, through, lost) "
        "SELECT id, '', report_n, 0 FROM devices WHERE report_n > 0"
    )
