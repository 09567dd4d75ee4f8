# SPDX-License-Identifier: Apache-2.0
"""An HTTP/1.1 client that sends any bytes over a real socket and reads answers one by one, believing nothing."""

from __future__ import annotations

import contextlib
import json
import socket
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

Address = tuple[str, int] | str
"""TCP host and port, or the path of a unix socket."""

SECONDS = 15.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def closes(self) -> bool:
        return self.headers.get("connection") == "close"

    @property
    def json(self) -> Any:
        size = self.headers.get("inference-header-content-length")
        return json.loads(self.body[: int(size)] if size else self.body)

    @property
    def tail(self) -> bytes:
        return self.body[int(self.headers["inference-header-content-length"]) :]


class RawHttp:
    def __init__(self, address: Address, *, seconds: float = SECONDS) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(seconds)
        self.socket.connect(address)
        self._data = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, data: bytes) -> Answer:
        """Send and read one answer, which must come."""
        with contextlib.suppress(
            BrokenPipeError, ConnectionResetError
        ):  # refused early: the answer is there all the same
            self.send(data)
        return self.next()

    def next(self) -> Answer:
        """The next answer, which must come."""
        answer = self.answer()
        assert answer is not None, "closed without an answer"
        return answer

    def answer(self, *, head_only: bool = False) -> Answer | None:
        """The next answer; None when the server has closed in between."""
        while b"\r\n\r\n" not in self._data:
            if not self._more():
                assert not self._data, f"closed inside a head: {self._data!r}"
                return None
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        size = 0 if head_only or status.startswith("1") else int(headers["content-length"])
        while len(self._data) < size:
            assert self._more(), "closed inside a body"
        body, self._data = self._data[:size], self._data[size:]
        return Answer(status=int(status), headers=headers, body=body)

    def _more(self) -> bool:
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        self._data += data
        return bool(data)

    def ended(self) -> bool:
        """Whether the server closes now without another byte."""
        return self.answer() is None

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def request(path: str, body: bytes = b"", *, method: str = "POST", **headers: object) -> bytes:
    """A whole request; `Inference_Header_Content_Length=5` adds that header."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body
