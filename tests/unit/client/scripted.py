# SPDX-License-Identifier: Apache-2.0
"""A server that does what a list says, over a unix socket: answers are bytes, `None` hangs up, `...` says nothing more."""

from __future__ import annotations

import contextlib
import json
import socket
import threading

import numpy as np

Step = bytes | None


def answer(body=b"", *, status="200 OK", tensors_at=None, extra=()):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *extra]
    if tensors_at is not None:
        lines.append(f"Inference-Header-Content-Length: {tensors_at}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def described(name, array, datatype="FP32", size=None):
    size = array.nbytes if size is None else size
    return {
        "name": name,
        "datatype": datatype,
        "shape": list(array.shape),
        "parameters": {"binary_data_size": size},
    }


def inferred(*outputs, tail=b"", extra=(), **document):
    """`outputs` as JSON objects, `tail` the bytes after the JSON."""
    text = json.dumps({"model_name": "m", "model_version": "1", "outputs": list(outputs), **document}).encode()
    return answer(text + tail, tensors_at=len(text), extra=extra)


Y = np.arange(3, dtype=np.float32)
GOOD = inferred(described("y", Y), tail=Y.tobytes())


class Scripted:
    """`connections`: for each connection in turn, what comes for each request in turn."""

    def __init__(self, path, *connections):
        self.path = path
        self.requests: list[bytes] = []
        self.asked = threading.Event()
        self.accepted = 0
        self._script = connections
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(8)
        self._open: list[socket.socket] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self):
        return f"unix://{self.path}"

    def _serve(self):
        try:
            for steps in self._script:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                self.accepted += 1
                self._play(connection, steps)
        except OSError:
            pass  # the test is over

    def _play(self, connection, steps):
        for step in steps:
            if step is None:
                connection.close()
                return
            request = read_request(connection)
            if request is None:
                return
            self.requests.append(request)
            self.asked.set()
            if step is ...:
                self._done.wait(20)
                return
            for piece in step if isinstance(step, list) else [step]:
                if piece is None:
                    connection.close()
                    return
                connection.sendall(piece)

    def close(self):
        self._done.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):  # closed already
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._thread.join(5)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def read_request(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    size = int(headers.get("Content-Length", 0))
    while len(body) < size:
        more = connection.recv(65536)
        if not more:
            return None
        body += more
    return head + b"\r\n\r\n" + body
