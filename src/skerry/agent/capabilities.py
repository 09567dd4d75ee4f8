# SPDX-License-Identifier: Apache-2.0
"""What this device can run: as measured (runtime/machine.py), and as its owner states what cannot be measured.

`merge_file` is for an accelerator behind a vendor driver, say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from skerry.agent.state import UNREADABLE
from skerry.errors import ConfigError
from skerry.runtime.machine import boot_id, measure
from skerry.wire.v1.device import Capabilities

__all__ = ["boot_id", "measure", "merge_file"]


def merge_file(measured: Capabilities, path: Path) -> Capabilities:
    """The JSON object in `path` over what was measured, key by key. Raises ConfigError."""
    try:
        stated: dict[str, Any] = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        unknown = stated.keys() - set(Capabilities.__struct_fields__)
        if unknown:
            raise ConfigError(where=str(path), problem=f"unknown: {', '.join(sorted(unknown))}")
        return msgspec.convert({**msgspec.to_builtins(measured), **stated}, Capabilities)
    except OSError as error:
        raise ConfigError(where=str(path), problem=error.strerror or str(error)) from error
    except UNREADABLE as error:
        raise ConfigError(where=str(path), problem=str(error)) from error
