# SPDX-License-Identifier: Apache-2.0
"""Request target -> what is asked for. Pure: percent-decoding happens here, once, before anything is compared."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

from skerry.errors import InferenceRequestInvalid, MethodNotAllowed, UnknownPath


class Endpoint(StrEnum):
    SERVER = "server"
    LIVE = "live"
    READY = "ready"
    METRICS = "metrics"
    MODELS = "models"
    MODEL = "model"
    MODEL_READY = "model-ready"
    CONFIG = "config"
    STATS = "stats"
    ALL_STATS = "all-stats"
    INFER = "infer"
    SLOT = "slot"
    INDEX = "index"


@dataclass(frozen=True, kw_only=True)
class Route:
    """`model` and `version` are decoded; empty when the path names none."""

    endpoint: Endpoint
    model: str = ""
    version: str = ""


_FIXED: Final = {
    ("v2",): Endpoint.SERVER,
    ("v2", "health", "live"): Endpoint.LIVE,
    ("v2", "health", "ready"): Endpoint.READY,
    ("v2", "models"): Endpoint.MODELS,
    ("v2", "models", "stats"): Endpoint.ALL_STATS,
    ("v2", "repository", "index"): Endpoint.INDEX,
    ("metrics",): Endpoint.METRICS,
}
_OF_MODEL: Final = {
    (): Endpoint.MODEL,
    ("ready",): Endpoint.MODEL_READY,
    ("config",): Endpoint.CONFIG,
    ("stats",): Endpoint.STATS,
    ("infer",): Endpoint.INFER,
    ("slot",): Endpoint.SLOT,
}
_ABSOLUTE: Final = re.compile(r"(?i:https?)://[^/]+(/.*)?", re.DOTALL)
"""What is sent to proxies, and has to be understood by everyone: RFC 9112 section 3.2.2."""

_POSTED: Final = frozenset({Endpoint.INFER, Endpoint.INDEX, Endpoint.SLOT})
_MAX_SHOWN: Final = 200


def route(method: str, target: str) -> Route:
    """Raises UnknownPath, MethodNotAllowed, InferenceRequestInvalid (a name that is not UTF-8 once decoded).

    HEAD is answered wherever GET is. A query is ignored.
    """
    path = target.split("?", 1)[0]
    found = _remembered(path) if len(path) <= _MAX_SHOWN else _find(path)
    allowed = ("POST",) if found.endpoint in _POSTED else ("GET", "HEAD")
    if method not in allowed:
        raise MethodNotAllowed(method=method, path=path[:_MAX_SHOWN], allow=", ".join(allowed))
    return found


def _find(path: str) -> Route:
    if not path.startswith("/"):
        absolute = _ABSOLUTE.fullmatch(path)
        if absolute is None:
            raise UnknownPath(path=path[:_MAX_SHOWN])
        path = absolute[1] or "/"
    parts = tuple(_decoded(part) for part in path[1:].split("/"))
    if parts in _FIXED:
        return Route(endpoint=_FIXED[parts])
    if parts[:2] == ("v2", "models") and len(parts) > 2 and parts[2]:  # noqa: PLR2004 - v2/models/NAME
        versioned = parts[3:4] == ("versions",)
        version = parts[4] if versioned and len(parts) > 4 else ""  # noqa: PLR2004 - v2/models/NAME/versions/V
        endpoint = _OF_MODEL.get(parts[5:] if versioned else parts[3:])
        if endpoint is not None and (version or not versioned):
            return Route(endpoint=endpoint, model=parts[2], version=version)
    raise UnknownPath(path=path[:_MAX_SHOWN])


_remembered: Final = lru_cache(maxsize=256)(_find)  # clients ask the same few paths; long ones would only fill memory


def _decoded(part: str) -> str:
    try:
        return unquote_to_bytes(part).decode()
    except UnicodeDecodeError as error:
        raise InferenceRequestInvalid(problem="the path is not UTF-8") from error
