# SPDX-License-Identifier: Apache-2.0
"""Times and durations as people write and read them. Instants are seconds since the epoch, UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_STEPS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def parse_duration(text: str) -> float:
    """Seconds of `30s`, `10m`, `1h30m`, `500ms` or a bare number of seconds. Raises ValueError."""
    stripped = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", stripped):
        return float(stripped)
    if not stripped or _PART.sub("", stripped):
        raise ValueError(text)
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(stripped))


def brief(seconds: float) -> str:
    """A duration in its largest unit and, below ten of them, the next: 45s, 1m30s, 3h, 12d."""
    left = max(0, round(seconds))
    for index, (size, unit) in enumerate(_STEPS):
        if left >= size:
            number, rest = divmod(left, size)
            smaller = _STEPS[index + 1] if index + 1 < len(_STEPS) else None
            if number < 10 and smaller and rest >= smaller[0]:  # noqa: PLR2004 - two digits say enough
                return f"{number}{unit}{rest // smaller[0]}{smaller[1]}"
            return f"{number}{unit}"
    return "0s"


def ago(then: float | None, now: float) -> str:
    """`3m ago`; `in 5m` for the future, `never` for None."""
    if then is None:
        return "never"
    if then > now + 1:
        return "in " + brief(then - now)
    return brief(now - then) + " ago"


def iso(instant: float) -> str:
    """RFC 3339 with milliseconds and Z."""
    return datetime.fromtimestamp(instant, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
