# SPDX-License-Identifier: Apache-2.0
"""Devices try a new version beside the current one: what they shall do, and what they measured."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("desired_workloads", sa.Column("trial", sa.Text(), nullable=True))
    op.add_column("desired_workloads", sa.Column("keep_warm", sa.Text(), nullable=True))
    op.create_table(
        "trials",
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("workload", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("received", sa.Double(), nullable=False),
        sa.Column("report", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"], name=op.f("fk_trials_device_id_devices")),
        sa.PrimaryKeyConstraint("device_id", "workload", "digest", name=op.f("pk_trials")),
    )
