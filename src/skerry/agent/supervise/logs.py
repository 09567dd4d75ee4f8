# SPDX-License-Identifier: Apache-2.0
"""What runners write to stderr: one file a workload and the one before it, both bounded, whatever a runner writes."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import IO, Final

LOG_LIMIT: Final = 1024 * 1024

_log = logging.getLogger(__name__)


def open_log(path: Path) -> contextlib.closing[IO[bytes]]:
    """To append to. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_LIMIT:
        path.replace(path.with_suffix(".log.1"))
    return contextlib.closing(path.open("ab"))


def bound_log(path: Path) -> None:
    """While a runner writes to it: the end of a file that has grown too long becomes the one before, and it begins anew.

    The runner goes on writing at the file's end, wherever that is. What it writes between the two calls is lost.
    """
    try:
        size = path.stat().st_size
        if size > LOG_LIMIT:
            with path.open("rb") as file:
                file.seek(size - LOG_LIMIT)
                path.with_suffix(".log.1").write_bytes(file.read(LOG_LIMIT))
            os.truncate(path, 0)
    except FileNotFoundError:
        return
    except OSError as error:
        _log.warning("log not bounded path=%s error=%s", path, error)
