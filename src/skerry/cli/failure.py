# SPDX-License-Identifier: Apache-2.0
"""How an error reads on stderr: two lines for people, one JSON object of the shape of `wire.v1.device.ErrorBody` for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from skerry.errors import SkerryError


@dataclass(frozen=True, kw_only=True)
class Failure:
    code: str
    message: str
    hint: str = ""
    fields: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def of(cls, error: SkerryError) -> Failure:
        return cls(code=error.code, message=str(error), hint=error.hint(), fields=error.fields)

    def text(self) -> str:
        lines = [f"error {self.code}: {self.message}"]
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)

    def json(self) -> str:
        body = {"code": self.code, "message": self.message, "hint": self.hint, "fields": dict(self.fields)}
        return json.dumps(body, default=str)


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether `-o json` was asked for, in any spelling, even on a line that does not parse."""
    joined = "\0".join(arguments) + "\0"
    spellings = ("-o\0json\0", "-ojson\0", "-o=json\0", "--output\0json\0", "--output=json\0")
    return any("\0" + spelling in "\0" + joined for spelling in spellings)
