# SPDX-License-Identifier: Apache-2.0
"""The tables, the same on SQLite and PostgreSQL. Migrations are written from these; a test holds them equal.

Times are seconds since the epoch; documents (labels, specs, reports ...) are JSON text in the wire's shape.
history_entries, audit and rollout_events are append-only: triggers made by the first migration refuse anything else.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


_ROW_NUMBER = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER PRIMARY KEY counts by itself there


def _text(name: str, *, key: bool = False) -> Column[str]:
    return Column(name, Text, primary_key=key, nullable=False)


def _number(name: str, *, key: bool = False) -> Column[int]:
    return Column(name, BigInteger, primary_key=key, nullable=False, autoincrement=False)


def _time(name: str, *, nullable: bool = False) -> Column[float]:
    return Column(name, Double, nullable=nullable)


def _device(*, key: bool = True) -> Column[str]:
    return Column("device_id", Text, ForeignKey("devices.id"), primary_key=key, nullable=False)


def _rollout() -> Column[str]:
    return Column("rollout_id", Text, ForeignKey("rollouts.id"), primary_key=True, nullable=False)


devices = Table(
    "devices",
    metadata,
    _text("id", key=True),
    _text("name"),
    _text("labels"),
    Column("public_key", LargeBinary, nullable=False),
    _text("capabilities"),
    _time("enrolled"),
    _time("last_seen", nullable=True),
    _time("revoked", nullable=True),
    _time("deleted", nullable=True),
    _text("issues"),  # as the device reported them
    _text("doubts"),  # what the hub found wrong with its history
    _number("report_n"),
    _number("desired_version"),
    _number("assignment_sequence"),
    _number("applied_sequence"),
    _number("applied_version"),
    _number("history_n"),
    _text("history_hash"),
    Index(None, "name"),
)

device_labels = Table(
    "device_labels",
    metadata,
    _device(),
    _text("key", key=True),
    _text("value"),
    Index(None, "key", "value", "device_id"),
)

enrolment_tokens = Table(
    "enrolment_tokens",
    metadata,
    Column("token_hash", LargeBinary, primary_key=True),
    _text("labels"),
    _time("created"),
    _text("created_by"),
    _time("expires"),
    _time("used", nullable=True),
    _text("device_id"),
)

fleets = Table("fleets", metadata, _text("name", key=True), _text("selector"))

desired_workloads = Table(
    "desired_workloads",
    metadata,
    _device(),
    _text("workload", key=True),
    _text("bundle"),
    _text("rollout"),
    Column("soak_seconds", Double, nullable=False),
    Column("trial", Text, nullable=True),
    Column("keep_warm", Text, nullable=True),  # none = where the memory suffices
)

assignments = Table(
    "assignments",
    metadata,
    _device(),
    _number("sequence", key=True),
    _number("desired_version"),
    Column("envelope", LargeBinary, nullable=False),
    _time("issued"),
    _time("expires"),
)

outboxes = Table(
    "outboxes",
    metadata,
    _device(),
    _text("outbox", key=True),
    _number("through"),
    _number("lost"),
)

reports = Table(
    "reports",
    metadata,
    _device(),
    _number("n", key=True),  # the hub's own count: a report's `seq` is only unique within its outbox
    _time("received"),
    _text("report"),
)

device_workloads = Table(
    "device_workloads",
    metadata,
    _device(),
    _text("workload", key=True),
    _text("digest"),
    _text("state"),
    _text("variant"),
    _text("rollout"),
    _text("reason"),
    _text("detail"),
    _text("running"),
    _number("sequence"),
    _time("at"),
    _time("received"),
    Index(None, "state"),
)

figures = Table(
    "figures",
    metadata,
    _device(),
    _text("workload", key=True),
    _text("digest", key=True),
    _time("at"),
    _time("received"),
    _text("figures"),
)

trials = Table(
    "trials",
    metadata,
    _device(),
    _text("workload", key=True),
    _text("digest", key=True),
    _time("at"),
    _time("received"),
    _text("report"),
)

results = Table(
    "results",
    metadata,
    Column("n", _ROW_NUMBER, primary_key=True, autoincrement=True),
    _device(key=False),
    _text("event_id"),
    _text("workload"),
    _time("at"),
    _time("received"),
    _text("bundle"),
    _text("outputs"),
    _text("request_id"),
    UniqueConstraint("device_id", "event_id"),
    Index(None, "device_id", "n"),
)

history_entries = Table(
    "history_entries",
    metadata,
    _device(),
    _number("n", key=True),
    _time("received"),
    _text("entry"),
)

rollouts = Table(
    "rollouts",
    metadata,
    _text("id", key=True),
    _text("workload"),
    _text("digest"),
    _text("status"),
    _text("reason"),
    _text("spec"),
    _text("selector"),
    _text("bundle"),
    _time("created"),
    _text("created_by"),
    _time("undo_started", nullable=True),
    _time("finished", nullable=True),
    _number("version"),
    Index(None, "status"),
    Index(None, "created", "id"),
)

rollout_stages = Table(
    "rollout_stages",
    metadata,
    _rollout(),
    _number("stage", key=True),
    _text("name"),
    _text("status"),
    _number("fleet"),
    _time("started", nullable=True),
    _time("soak_since", nullable=True),
    _time("finished", nullable=True),
    Column("waived", Boolean, nullable=False),
    _text("gates"),
)

rollout_members = Table(
    "rollout_members",
    metadata,
    _rollout(),
    _device(),
    _text("name"),
    _number("stage"),
    _text("state"),
    _text("outcome"),
    _text("reason"),
    Column("previous", Text, nullable=True),
    Column("previous_soak", Double, nullable=False),
    _time("assigned_at", nullable=True),
    _time("resolved_at", nullable=True),
    _time("undo_at", nullable=True),
    Column("accepted", Boolean, nullable=False),
    _number("desired_version"),
    Index(None, "state"),
    Index(None, "device_id"),
)

rollout_events = Table(
    "rollout_events",
    metadata,
    _rollout(),
    _number("n", key=True),
    _time("at"),
    _text("kind"),
    _text("detail"),
)

bundles = Table(
    "bundles",
    metadata,
    _text("digest", key=True),
    _text("line"),
    _text("model"),
    _text("version"),
    _number("release_seq"),
    _text("target"),
    _time("published"),
    _number("size"),
    Column("config", LargeBinary, nullable=False),
    _time("quarantined", nullable=True),
    _text("quarantine_reason"),
    UniqueConstraint("line", "model", "version"),
)

catalogue_files = Table(
    "catalogue_files",
    metadata,
    _text("name", key=True),
    _number("version", key=True),
    Column("data", LargeBinary, nullable=False),
)

users = Table(
    "users",
    metadata,
    _text("name", key=True),
    _text("role"),
    Column("token_hash", LargeBinary, nullable=False),
    _time("created"),
    UniqueConstraint("token_hash"),
)

audit = Table(
    "audit",
    metadata,
    _number("n", key=True),
    _time("at"),
    _text("actor"),
    _text("role"),
    _text("action"),
    _text("subject"),
    _text("outcome"),
)

settings = Table("settings", metadata, _text("name", key=True), Column("value", LargeBinary, nullable=False))

used_names = Table("used_names", metadata, _text("name", key=True), _time("until"), Index(None, "until"))

counters = Table("counters", metadata, _text("name", key=True), _number("value"))

leases = Table(
    "leases",
    metadata,
    _text("name", key=True),
    _text("holder"),
    _time("expires"),
    _number("term"),
)
