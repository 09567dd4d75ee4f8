# SPDX-License-Identifier: Apache-2.0
"""The root of the tree."""

from __future__ import annotations

from typing import ClassVar


class SkerryError(Exception):
    """Root. `fields` are the facts; `template` and `advice` are formatted with them."""

    code: ClassVar[str] = "SKY-0000"
    template: ClassVar[str] = "{detail}"
    advice: ClassVar[str] = ""

    def __init__(self, **fields: object) -> None:
        self.fields = fields
        super().__init__(self.template.format(**fields))

    def hint(self) -> str:
        """What to do next; empty when there is nothing better than the message itself."""
        return self.advice.format(**self.fields)
