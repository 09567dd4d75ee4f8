# SPDX-License-Identifier: Apache-2.0
"""Documents about servers and models, the same that HTTP answers with, as messages. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skerry.oip.grpc.descriptors import Message, message_class


def encode(name: str, document: Mapping[str, Any]) -> bytes:
    """A message of class `name` filled with `document`, whose keys are field names; what has no field is left out."""
    message = message_class(name)()
    _fill(message, document)
    return bytes(message.SerializeToString())


def _fill(message: Message, document: Mapping[str, Any]) -> None:
    fields = message.DESCRIPTOR.fields_by_name
    for name, value in document.items():
        field = fields.get(name)
        if field is None:
            continue
        kind = field.message_type
        if kind is None:
            _set(message, name, value)
        elif kind.GetOptions().map_entry:
            for key, entry in value.items():
                _fill(getattr(message, name)[key], entry)
        elif isinstance(value, Mapping):
            getattr(message, name).SetInParent()
            _fill(getattr(message, name), value)
        else:
            for entry in value:
                _fill(getattr(message, name).add(), entry)


def _set(message: Message, name: str, value: object) -> None:
    if isinstance(value, list):
        getattr(message, name).extend(value)
    else:
        setattr(message, name, value)  # protobuf takes the name of an enum's value, too
