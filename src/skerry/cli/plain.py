# SPDX-License-Identifier: Apache-2.0
"""Structs as plain values for `-o json` and `-o yaml`: same names as on the wire, instants as ISO text."""

from __future__ import annotations

from typing import Any

import msgspec

from skerry.cli.times import iso

_INSTANTS = frozenset(
    {"at", "created", "enrolled", "expires", "finished", "issued", "last_seen", "published", "received"}
)


def plain(value: object) -> Any:  # noqa: ANN401 - the shape follows the value
    """Dicts, lists and scalars. Only fields of structs are taken for instants: a label called `at` stays as it is."""
    if isinstance(value, msgspec.Struct):
        return _struct(value)
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return msgspec.to_builtins(value)


def _struct(value: msgspec.Struct) -> dict[str, Any]:
    config = value.__struct_config__
    result: dict[str, Any] = {str(config.tag_field): config.tag} if config.tag_field else {}
    for field in msgspec.structs.fields(value):
        content = getattr(value, field.name)
        instant = field.name in _INSTANTS and isinstance(content, float | int)
        result[field.encode_name] = iso(content) if instant else plain(content)
    return result
