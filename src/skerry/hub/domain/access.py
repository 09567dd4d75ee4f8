# SPDX-License-Identifier: Apache-2.0
"""Who may ask the hub for what, who asked, and which replica drives a loop."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import Struct

from skerry.wire.v1.operator import Role


class User(Struct, frozen=True, kw_only=True):
    name: str
    role: Role
    token_hash: bytes  # SHA-256 of the bearer token; the token itself is never stored
    created: float


class AuditRecord(Struct, frozen=True, kw_only=True):
    """An audit entry before the store has numbered it."""

    at: float
    actor: str
    role: str
    action: str
    subject: str
    outcome: str


@dataclass(kw_only=True)
class Note:
    """What the audit log shall say of a request. The store writes it in the very transaction that does what was asked, and
    marks it `written` once that is committed; after a refusal nothing was, and whoever answers records that instead.
    """

    record: AuditRecord
    written: bool = False


class Lease(Struct, frozen=True, kw_only=True):
    """`holder` alone may act under `name` until `expires`. `term` grows by one whenever the holder changes."""

    name: str
    holder: str
    expires: float
    term: int
