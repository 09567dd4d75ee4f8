# SPDX-License-Identifier: Apache-2.0
"""What the catalogue holds, as the hub keeps it."""

from __future__ import annotations

from msgspec import Struct

from skerry.wire.v1.device import BundleRef


class BundleRecord(Struct, frozen=True, kw_only=True):
    ref: BundleRef
    published: float
    size: int  # bytes of the whole bundle
    config: bytes  # `skerry.json` as published
    quarantined: float | None = None  # since when; None = free to roll out
    quarantine_reason: str = ""


class CatalogueFile(Struct, frozen=True, kw_only=True):
    """One version of a metadata or target file, served as it is."""

    name: str
    version: int
    data: bytes
