# SPDX-License-Identifier: Apache-2.0
"""Where a server is: `http://host[:port]`, `unix:///path.sock` or `shm:///path.sock`. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import unquote, urlsplit

from skerry.errors import CallInvalid

_MAX_SOCKET_PATH: Final = 107  # bytes of sun_path, without the zero that ends it (unix(7))


class Scheme(StrEnum):
    HTTP = "http"
    UNIX = "unix"  # HTTP over a unix socket
    SHM = "shm"  # tensors in memory shared over that socket, everything else as UNIX


@dataclass(frozen=True, kw_only=True)
class Address:
    """`path` of the socket for UNIX and SHM, else `host` and `port`; `authority` is what the Host header says."""

    url: str
    scheme: Scheme
    host: str = ""
    port: int = 0
    path: str = ""
    authority: str = "localhost"


def parse(url: str) -> Address:
    """Raises CallInvalid, saying what an address looks like."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise CallInvalid(problem=f"{url} is no address: {error}") from error
    if not url.isprintable():
        raise CallInvalid(problem=f"{url!r} is no address: it has characters that cannot be seen")
    if parts.query or parts.fragment or parts.username is not None:
        raise CallInvalid(problem=f"{url}: an address has no user, query or fragment")
    match parts.scheme:
        case "http":
            return _over_tcp(url, parts.hostname or "", port or 80, parts.path)
        case "unix" | "shm":
            return _over_socket(url, Scheme(parts.scheme), parts.netloc, unquote(parts.path))
        case _:
            raise CallInvalid(
                problem=f"{url} is no address: it begins with http://host:port, unix:///path or shm:///path"
            )


def _over_tcp(url: str, host: str, port: int, path: str) -> Address:
    if not host or path not in {"", "/"}:
        raise CallInvalid(problem=f"{url} is no address: after http:// come host and port, nothing else")
    shown = f"[{host}]" if ":" in host else host
    return Address(url=url, scheme=Scheme.HTTP, host=host, port=port, authority=f"{shown}:{port}")


def _over_socket(url: str, scheme: Scheme, host: str, path: str) -> Address:
    if host or not path.startswith("/"):
        raise CallInvalid(problem=f"{url}: the path of a socket is absolute, so three slashes: {scheme}:///run/x.sock")
    if len(path.encode()) > _MAX_SOCKET_PATH or "\0" in path:
        raise CallInvalid(problem=f"{url}: the path of a socket has at most {_MAX_SOCKET_PATH} bytes")
    return Address(url=url, scheme=scheme, path=path)
