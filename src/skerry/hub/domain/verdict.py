# SPDX-License-Identifier: Apache-2.0
"""The two answers of every decision: a value with a reason, never a bare bool."""

from __future__ import annotations

from msgspec import Struct


class Allowed(Struct, frozen=True, kw_only=True):
    pass


class Refused(Struct, frozen=True, kw_only=True):
    reason: str  # one sentence part an operator can act on, e.g. "the bundle is quarantined: ..."


Verdict = Allowed | Refused
